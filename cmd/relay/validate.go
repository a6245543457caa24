package main

import (
	"encoding/json"
	"errors"
	"mime"
	"strings"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// validator returns the check of payloads, nil unless it is switched on.
func (p pipelineConfig) validator() func(*brokers.Message, event.Schema) error {
	if !p.Validate {
		return nil
	}
	v := &avro.Validator{}
	return func(m *brokers.Message, s event.Schema) error {
		if s.Format == asAvro {
			return v.Validate(m.Payload, s)
		}
		if (s.Format == asJSON || s.IsZero() && isJSON(m.ContentType)) && !json.Valid(m.Payload) {
			return errors.New("the payload is not JSON, as its content type " + m.ContentType + " says")
		}
		return nil // nobody here knows the format
	}
}

func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}
