package avro

import (
	"fmt"

	"github.com/outboxkit/outboxkit/event"
)

// Validator says whether bytes fit a schema, without decoding them. It remembers
// the schemas it has met; its zero value is ready and safe for concurrent use.
type Validator struct{ schemas writerCache }

// Validate returns nil if data is exactly one value of s, a [DataError] that names
// the place if it is not, and an error that wraps [ErrSchema] if s is no schema.
func (v *Validator) Validate(data []byte, s event.Schema) error {
	if s.Format != format {
		return fmt.Errorf("avro: data of format %q cannot be validated", s.Format)
	}
	w := v.schemas.get(s.Text, func(text string) *writer {
		w := &writer{}
		w.root, w.err = parseSchema(text)
		return w
	})
	if w.err != nil {
		return w.err
	}
	return check(w.root, data)
}

// Validate is [Validator.Validate] for once.
func Validate(data []byte, s event.Schema) error { return new(Validator).Validate(data, s) }
