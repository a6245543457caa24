package event

import (
	"fmt"
	"reflect"
)

// Type describes one kind of event whose data is a T. It is a value: declare it
// once as a package variable and use it from any goroutine; nothing in it
// changes after that.
type Type[T any] struct {
	// Name is the CloudEvents "type", for example "shop.order.placed". Required.
	Name string
	// Topic is where the event goes: a Kafka topic, or the topic that a RabbitMQ
	// publisher maps to exchange and routing key. Required.
	Topic string
	// Key returns the ordering key: events with equal keys are published in write
	// order. Nil, or an empty result, means that the event has no order.
	Key func(T) string
	// Codec turns a T into bytes and back. Required.
	Codec Codec
}

// Any is a [Type] whose data type has been forgotten, for lists of types. Only
// Type implements it.
type Any interface {
	// Info returns what does not depend on the data type.
	Info() Info
}

// Info is the part of a [Type] that does not depend on its data type.
type Info struct {
	Name  string       // CloudEvents "type"
	Topic string       // destination
	Codec Codec        // encoder and decoder
	Data  reflect.Type // the Go type of the data
}

// Validate names the first required field that is missing.
func (i Info) Validate() error {
	switch {
	case i.Name == "":
		return &FieldError{Field: "Type.Name", Problem: "is empty", Hint: "set it to the CloudEvents type, for example shop.order.placed"}
	case i.Topic == "":
		return &FieldError{Field: fmt.Sprintf("Type[%s].Topic", i.Name), Problem: "is empty", Hint: "set it to the destination topic"}
	case i.Codec == nil:
		return &FieldError{Field: fmt.Sprintf("Type[%s].Codec", i.Name), Problem: "is nil", Hint: "set it, for example to avro.MustParse(schema)"}
	}
	return nil
}

// Info implements [Any].
func (t Type[T]) Info() Info {
	return Info{Name: t.Name, Topic: t.Topic, Codec: t.Codec, Data: reflect.TypeFor[T]()}
}

// New returns an event of this type that carries data. It does not encode: a
// value that does not fit the schema is refused by outbox.Write.
func (t Type[T]) New(data T) Draft {
	d := Draft{Type: t.Info(), Data: data}
	if t.Key != nil {
		d.Key = t.Key(data)
	}
	return d
}

// Tombstone returns an event of this type without data (a NULL payload), which
// tells a compacted Kafka topic to forget key.
func (t Type[T]) Tombstone(key string) Draft {
	return Draft{Type: t.Info(), Key: key, Tombstone: true}
}
