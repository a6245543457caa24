package telemetry

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

// Middleware records every attempt of a consumer's handlers: its duration, the way
// of the event that it succeeded with, and a span, below that of the request that
// wrote the event. It is for inbox.Config.Middleware, in front of others, so that
// what they log carries the span's ids; see [LogHandler].
//
// An attempt of a batch has a span of its own trace, with links to each event's.
func (t *Telemetry) Middleware(consumer string) inbox.Middleware {
	return func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			began := time.Now()
			ctx, span := t.startAttempt(ctx, consumer, a)
			err := next(ctx, a)
			ended := time.Now()
			attrs := []attribute.KeyValue{
				attribute.String(attrSystem, a.Origin.Broker), attribute.String(attrOperation, "process"),
				attribute.String(attrDestination, a.Topic), attribute.String(attrConsumer, consumer),
			}
			if err != nil {
				kind := attribute.String(attrError, errorType(err))
				attrs = append(attrs, kind)
				span.SetAttributes(kind)
				span.SetStatus(codes.Error, firstLine(err.Error()))
			} else {
				t.arrived(ctx, consumer, a, ended)
			}
			t.process.Record(ctx, ended.Sub(began).Seconds(), metric.WithAttributes(attrs...))
			span.End()
			return err
		}
	}
}

// events are those of the attempt.
func events(a *inbox.Attempt) []event.Envelope {
	if a.Batch != nil {
		return a.Batch
	}
	return []event.Envelope{a.Envelope}
}

func (t *Telemetry) startAttempt(ctx context.Context, consumer string, a *inbox.Attempt) (context.Context, trace.Span) {
	attrs := []attribute.KeyValue{
		attribute.String(attrSystem, a.Origin.Broker), attribute.String(attrOperation, "process"), attribute.String(attrOpType, "process"),
		attribute.String(attrDestination, a.Topic), attribute.String(attrConsumer, consumer), attribute.Int(attrAttempt, a.Number),
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer)}
	if len(a.Batch) > 1 {
		attrs = append(attrs, attribute.Int(attrBatchSize, len(a.Batch)))
		var links []trace.Link
		for _, e := range a.Batch {
			if from := parent(e.Headers); from.IsValid() {
				links = append(links, trace.Link{SpanContext: from})
			}
		}
		options = append(options, trace.WithNewRoot(), trace.WithLinks(links...))
	} else {
		attrs = append(attrs, attribute.String(attrMessageID, a.ID), attribute.String(attrEventType, a.Type))
		if from := parent(a.Headers); from.IsValid() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, from)
		}
	}
	return t.tracer.Start(ctx, "process "+a.Topic, append(options, trace.WithAttributes(attrs...))...)
}

// arrived records the whole way of each event.
func (t *Telemetry) arrived(ctx context.Context, consumer string, a *inbox.Attempt, now time.Time) {
	set := metric.WithAttributes(attribute.String(attrDestination, a.Topic), attribute.String(attrConsumer, consumer))
	for _, e := range events(a) {
		if e.Headers[relay.HeaderReplayID] != "" {
			continue
		}
		if at := written(e.ID, e.Time); !at.IsZero() {
			t.consumed.Record(ctx, ago(at, now), set)
		}
	}
}

// errorType is a handler's error in a word of which there are few.
func errorType(err error) string {
	var panicked *inbox.PanicError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &panicked):
		return "panic"
	case errors.As(err, &pg):
		return pg.Code
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	default:
		return "_OTHER"
	}
}

// firstLine leaves a panic's stack out.
func firstLine(text string) string {
	for i := range len(text) {
		if text[i] == '\n' {
			return text[:i]
		}
	}
	return text
}
