package telemetry

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// TraceHeaders returns the headers that carry ctx's trace, traceparent and, where
// there is one, tracestate. It is for outbox.Config.TraceHeaders. Baggage is left
// out: it is the request's, and may hold what is not meant for every consumer.
func TraceHeaders(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	return headers
}

// parent returns the span that wrote an event; not valid if there is none.
func parent(headers map[string]string) trace.SpanContext {
	if headers["traceparent"] == "" {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(headers))
	return trace.SpanContextFromContext(ctx)
}

// sampled looks at traceparent's flags alone: it is asked of every event.
func sampled(headers map[string]string) bool {
	const flags = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0")
	p := headers["traceparent"]
	if len(p) <= flags {
		return false
	}
	n, err := strconv.ParseUint(p[flags:flags+1], 16, 8)
	return err == nil && n&1 == 1
}

// written returns when an event was written: a UUIDv7 tells, to the millisecond, and
// cannot be set to another time as easily as the event's own. Where the id is another
// the event's time must do; zero if it has none.
func written(id string, at time.Time) time.Time {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[14] != '7' {
		return at
	}
	ms, err := strconv.ParseInt(id[:8]+id[9:13], 16, 64)
	if err != nil {
		return at
	}
	return time.UnixMilli(ms)
}

// ago returns seconds since then, at least 0: clocks differ.
func ago(then, now time.Time) float64 { return max(now.Sub(then).Seconds(), 0) }
