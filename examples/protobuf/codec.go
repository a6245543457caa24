package protobuf

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/outboxkit/outboxkit/event"
)

const (
	format = "protobuf"
	// maxData bounds what Decode makes of somebody else's bytes: two of them can
	// mean an empty message, some hundred bytes in memory.
	maxData  = 1 << 20
	maxDepth = 100
)

// New returns the codec of the messages of type M, for example *OrderPlaced.
// schema is the text of their .proto file, which the outbox keeps with the events.
// It is safe for concurrent use.
func New[M proto.Message](schema string) event.Codec {
	return codec[M]{event.Schema{Format: format, Text: schema, ContentType: "application/protobuf"}}
}

type codec[M proto.Message] struct{ schema event.Schema }

func (c codec[M]) Schema() event.Schema { return c.schema }

func (c codec[M]) Encode(v any) ([]byte, error) {
	m, ok := v.(M)
	if !ok || !m.ProtoReflect().IsValid() {
		return nil, &event.FieldError{Field: "data", Value: fmt.Sprintf("%T", v), Problem: fmt.Sprintf("is nil, or not a %T", m)}
	}
	data, err := proto.Marshal(m)
	switch {
	case err != nil:
		return nil, &event.FieldError{Field: "data", Problem: "cannot be encoded as Protobuf", Err: err}
	case len(data) > maxData:
		return nil, &event.FieldError{Field: "data", Problem: fmt.Sprintf("is %d bytes long; at most %d are allowed", len(data), maxData)}
	}
	return data, nil
}

// Decode ignores fields that M does not have: later versions may add some.
func (c codec[M]) Decode(data []byte, writer event.Schema, v any) error {
	to, ok := v.(*M)
	switch {
	case !ok:
		return fmt.Errorf("protobuf: cannot decode into a %T: a %T is needed", v, to)
	case !writer.IsZero() && writer.Format != format:
		return fmt.Errorf("protobuf: the data has format %q", writer.Format)
	case len(data) > maxData:
		return fmt.Errorf("protobuf: %d bytes long; at most %d are allowed", len(data), maxData)
	}
	m := (*to).ProtoReflect().New()
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth, DiscardUnknown: true}).Unmarshal(data, m.Interface()); err != nil {
		return fmt.Errorf("protobuf: %w", err)
	}
	*to, _ = m.Interface().(M)
	return nil
}
