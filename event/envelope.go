package event

import (
	"context"
	"time"
)

// Envelope is everything about an event but its data, under the names that
// CloudEvents 1.0 gives them. Identity is (Source, ID), never ID alone.
type Envelope struct {
	ID            string            // UUIDv7 of an outboxkit event; any string from elsewhere
	Source        string            // URI reference of the producer, for example /shop/orders
	Type          string            // CloudEvents type
	Topic         string            // topic it was published to
	Key           string            // ordering key, "" if it has none
	Time          time.Time         // when it happened; zero if unknown
	ContentType   string            // media type of the data, for example application/avro
	CorrelationID string            // "" if none
	CausationID   string            // "" if none
	Headers       map[string]string // plain headers, traceparent and tracestate among them
}

type causeKey struct{}

// WithCause returns a context in which events are written because of cause:
// outbox.Write copies cause's id into CausationID, and its correlation id (or,
// if it has none, its id) into CorrelationID of drafts that leave these empty.
// The inbox calls it for every handler.
func WithCause(ctx context.Context, cause Envelope) context.Context {
	return context.WithValue(ctx, causeKey{}, cause)
}

// Cause returns the envelope that [WithCause] put into ctx.
func Cause(ctx context.Context) (Envelope, bool) {
	e, ok := ctx.Value(causeKey{}).(Envelope)
	return e, ok
}
