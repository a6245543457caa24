package telemetry_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// One trace from the request through relay and broker to the consumer, and on with
// the event that it writes to the next.
func TestOneTraceFromTheRequestToTheLastConsumer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	request := w.place("o-1")
	spans := map[string]sdktrace.ReadOnlySpan{}
	require.Eventually(t, func() bool {
		for _, s := range w.spans.Ended() {
			spans[s.Name()] = s
		}
		return len(spans) == 5
	}, patience, tick)

	for name, want := range map[string]struct {
		parent trace.SpanID
		kind   trace.SpanKind
		attrs  map[string]string
	}{
		"send orders": {request.SpanID(), trace.SpanKindProducer, map[string]string{
			"messaging.system": "memory", "messaging.destination.name": "orders", "outboxkit.pipeline": "memory"}},
		"process orders": {request.SpanID(), trace.SpanKindConsumer, map[string]string{
			"messaging.consumer.group.name": "shipping", "outboxkit.event.type": placed.Name}},
		"send shipments":    {spans["process orders"].SpanContext().SpanID(), trace.SpanKindProducer, nil},
		"process shipments": {spans["process orders"].SpanContext().SpanID(), trace.SpanKindConsumer, map[string]string{"messaging.consumer.group.name": "mail"}},
	} {
		s := spans[name]
		require.NotNil(t, s, name)
		require.Equal(t, request.TraceID(), s.SpanContext().TraceID(), name)
		require.Equal(t, want.parent, s.Parent().SpanID(), name)
		require.Equal(t, want.kind, s.SpanKind(), name)
		require.False(t, s.EndTime().Before(s.StartTime()), name)
		got := map[string]string{}
		for _, a := range s.Attributes() {
			got[string(a.Key)] = a.Value.AsString()
		}
		for k, v := range want.attrs {
			require.Equal(t, v, got[k], name)
		}
	}
	require.Contains(t, w.log.String(), "trace_id="+request.TraceID().String())
	require.Contains(t, w.log.String(), "span_id="+spans["process orders"].SpanContext().SpanID().String())

	// The broker has what the service wrote: a repeated publication is the same.
	sent := w.broker.Log("orders")
	require.Contains(t, sent[0].Headers["traceparent"], request.SpanID().String())
	require.Equal(t, request.TraceID().String(), sent[0].TraceID())
}
