package outbox

import (
	"context"

	"github.com/outboxkit/outboxkit/event"
)

// Config configures an [Outbox].
type Config struct {
	// Source is the CloudEvents source of every event: a URI reference that names
	// this producer, for example "/shop/orders". Together with the event's id it
	// is the event's identity. Required.
	Source string
	// Types lists every type that this service writes. Required.
	Types []event.Any
	// Schema is the database schema of the outbox tables. Default: "outbox".
	Schema string
	// MaxPayload bounds an event's encoded data, in bytes; a larger one is refused
	// by Write instead of by the broker, when it is too late. Default: 900 KiB,
	// which fits Kafka's default of 1 MiB with its headers.
	MaxPayload int
	// Gate says whether a type may be written with its schema; the error names what
	// the schema breaks. [New] asks it once for each type whose schema this log has
	// not stored yet, and fails if it refuses one: with schema.Gate a service that
	// deploys an incompatible schema does not start. Default: every schema may.
	Gate func(ctx context.Context, t event.Info) error
	// TraceHeaders returns the headers that carry the trace of ctx, usually
	// traceparent and tracestate. Default: none.
	TraceHeaders func(ctx context.Context) map[string]string
}

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = "outbox"
	}
	if c.MaxPayload == 0 {
		c.MaxPayload = 900 << 10
	}
	return c
}

func (c Config) validate() error {
	if err := checkText("Config.Source", c.Source, 1, maxName); err != nil {
		return err
	}
	if err := checkSchemaName(c.Schema); err != nil {
		return err
	}
	if len(c.Types) == 0 {
		return &event.FieldError{Field: "Config.Types", Problem: "is empty", Hint: "list every type that this service writes"}
	}
	if c.MaxPayload < 0 {
		return &event.FieldError{Field: "Config.MaxPayload", Problem: "is negative", Hint: "give bytes, or 0 for the default"}
	}
	for _, t := range c.Types {
		if t == nil {
			return &event.FieldError{Field: "Config.Types", Problem: "contains nil"}
		}
		if err := checkInfo(t.Info()); err != nil {
			return err
		}
	}
	return nil
}

func checkInfo(i event.Info) error {
	if err := i.Validate(); err != nil {
		return err
	}
	if err := checkText("Type["+i.Name+"].Name", i.Name, 1, maxName); err != nil {
		return err
	}
	return checkText("Type["+i.Name+"].Topic", i.Topic, 1, maxTopic)
}
