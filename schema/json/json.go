// Package json encodes event data as plain JSON, for services that want no
// schema. It is also the proof that outboxkit's codecs are not bound to Avro.
package json

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/outboxkit/outboxkit/event"
)

// maxData is the largest message, in bytes, that a codec reads.
const maxData = 16 << 20

// New returns the codec for values of type T. Field names and omissions follow
// encoding/json. It implements [event.Codec] and is safe for concurrent use.
func New[T any]() event.Codec { return codec[T]{} }

type codec[T any] struct{}

// Schema implements [event.Codec]. JSON has no schema text.
func (codec[T]) Schema() event.Schema {
	return event.Schema{Format: "json", ContentType: "application/json"}
}

// Encode implements [event.Codec].
func (codec[T]) Encode(v any) ([]byte, error) {
	t, ok := v.(T)
	if !ok {
		return nil, &event.FieldError{Field: "data", Value: fmt.Sprintf("%T", v), Problem: fmt.Sprintf("is not a %T", *new(T))}
	}
	data, err := json.Marshal(t)
	if err != nil {
		return nil, &event.FieldError{Field: "data", Problem: "cannot be encoded as JSON", Err: err}
	}
	if len(data) > maxData {
		return nil, &event.FieldError{Field: "data", Problem: fmt.Sprintf("is %d bytes long; at most %d are allowed", len(data), maxData)}
	}
	return data, nil
}

// Decode implements [event.Codec]. Fields that T does not have are ignored, so
// that producers may add some; data after the value is not. The writer's schema
// matters only in its format.
func (codec[T]) Decode(data []byte, writer event.Schema, v any) error {
	if !writer.IsZero() && writer.Format != "json" {
		return fmt.Errorf("json: the data has format %q", writer.Format)
	}
	if _, ok := v.(*T); !ok {
		return fmt.Errorf("json: cannot decode into a %T: a %T is needed", v, new(T))
	}
	if len(data) > maxData {
		return fmt.Errorf("json: %d bytes long; at most %d are allowed", len(data), maxData)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("json: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("json: more data after the value, at byte %d", dec.InputOffset())
	}
	return nil
}
