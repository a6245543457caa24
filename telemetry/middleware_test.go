package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/telemetry"
)

func envelope(parent string) event.Envelope {
	return event.Envelope{
		ID: uuid.Must(uuid.NewV7()).String(), Topic: "orders", Type: placed.Name, Headers: map[string]string{"traceparent": parent},
	}
}

func TestAttemptsByError(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for want, err := range map[string]error{
		"":        nil,
		"_OTHER":  errors.New("no stock"),
		"panic":   &inbox.PanicError{Value: "boom", Stack: []byte("goroutine 1\n")},
		"timeout": fmt.Errorf("after 30s: %w", context.DeadlineExceeded),
		"23505":   &pgconn.PgError{Code: "23505"},
	} {
		handler := b.Middleware("mail")(func(context.Context, *inbox.Attempt) error { return err })
		a := &inbox.Attempt{Envelope: envelope(sampledParent), Origin: brokers.Origin{Broker: "kafka"}, Number: 1}
		require.Equal(t, err, handler(t.Context(), a))
		require.EqualValues(t, 1, b.sum("messaging.process.duration", attribute.String("error.type", want)), want)
		spans := b.spans.Ended()
		last := spans[len(spans)-1]
		require.Equal(t, err != nil, last.Status().Code == codes.Error, want)
		require.NotContains(t, last.Status().Description, "\n", "no stacks in spans")
	}
	require.EqualValues(t, 1, b.sum("outboxkit.inbox.latency"), "the one that succeeded")
}

// A batch has a trace of its own that leads to each of its events'.
func TestBatchesLinkToTheirEvents(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other := "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01"
	batch := []event.Envelope{envelope(sampledParent), envelope(other), envelope("")}
	var inside trace.SpanContext
	handler := b.Middleware("mail")(func(ctx context.Context, _ *inbox.Attempt) error {
		inside = trace.SpanContextFromContext(ctx)
		return nil
	})
	require.NoError(t, handler(t.Context(), &inbox.Attempt{Envelope: batch[0], Batch: batch, Number: 1}))
	spans := b.spans.Ended()
	require.Len(t, spans, 1)
	require.Equal(t, inside, spans[0].SpanContext())
	require.False(t, spans[0].Parent().IsValid())
	var linked []string
	for _, l := range spans[0].Links() {
		linked = append(linked, l.SpanContext.TraceID().String())
	}
	require.Equal(t, []string{sampledParent[3:35], other[3:35]}, linked)
	require.EqualValues(t, 3, b.sum("outboxkit.inbox.latency"), "each event came the whole way")
	require.EqualValues(t, 1, b.sum("messaging.process.duration"))

	// One that is handled alone goes on with its event's.
	require.NoError(t, handler(t.Context(), &inbox.Attempt{Envelope: batch[1], Batch: batch[1:2], Number: 2}))
	require.Equal(t, other[3:35], inside.TraceID().String())
}

func TestLogHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(telemetry.LogHandler(slog.NewTextHandler(&out, nil))).With("service", "orders")
	log.InfoContext(t.Context(), "outside")
	require.NotContains(t, out.String(), "trace_id")
	b := newBench(t)
	handler := b.Middleware("mail")(func(ctx context.Context, _ *inbox.Attempt) error {
		log.InfoContext(ctx, "inside", "n", 1)
		return nil
	})
	require.NoError(t, handler(t.Context(), &inbox.Attempt{Envelope: envelope(sampledParent), Number: 1}))
	require.Contains(t, out.String(), "msg=inside service=orders n=1 trace_id="+sampledParent[3:35]+" span_id="+b.spans.Ended()[0].SpanContext().SpanID().String())
}
