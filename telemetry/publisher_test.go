package telemetry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/telemetry"
)

// bench is telemetry with a reader and a recorder, and nothing around it.
type bench struct {
	*telemetry.Telemetry
	t      *testing.T
	reader *sdkmetric.ManualReader
	spans  *tracetest.SpanRecorder
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	var err error
	b.Telemetry, err = telemetry.New(telemetry.Config{
		Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader)),
		// Whatever a service's sampler is: the decision is the writer's.
		Tracers: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b.spans), sdktrace.WithSampler(sdktrace.AlwaysSample())),
	})
	require.NoError(t, err)
	return b
}

// sum adds up the points of a metric that have these attributes: a histogram's are
// counted.
func (b *bench) sum(name string, attrs ...attribute.KeyValue) (sum int64) {
	b.t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(b.t, b.reader.Collect(b.t.Context(), &rm))
	has := func(set attribute.Set) bool {
		for _, a := range attrs {
			if v, _ := set.Value(a.Key); v.AsString() != a.Value.AsString() {
				return false
			}
		}
		return true
	}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					if has(p.Attributes) {
						sum += p.Value
					}
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					if has(p.Attributes) {
						sum += int64(p.Count) //nolint:gosec // small
					}
				}
			default:
				b.t.Fatalf("%s is a %T", name, data)
			}
		}
	}
	return sum
}

// answers is a publisher with fixed results.
type answers []error

func (a answers) Publish(context.Context, []brokers.Message) []error { return a }
func (a answers) Close() error                                       { return errClosed }

var errClosed = errors.New("closed as asked")

const sampledParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func sent(topic, parent string, headers ...string) brokers.Message {
	m := brokers.Message{Topic: topic, Key: "k", ID: uuid.Must(uuid.NewV7()).String(), Payload: []byte("12345"), Headers: map[string]string{}}
	if parent != "" {
		m.Headers["traceparent"] = parent
	}
	for i := 0; i < len(headers); i += 2 {
		m.Headers[headers[i]] = headers[i+1]
	}
	return m
}

func TestPublisherRecordsWhatCameOfEachEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	away := &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("no route to host")}
	bad := &brokers.Error{Class: brokers.ClassDestination, Topic: "bills", Err: errors.New("unknown topic")}
	p := b.Publisher(answers{nil, nil, away, brokers.ErrHeld, bad}, telemetry.Pipeline{Name: "kafka", System: "kafka"})
	msgs := []brokers.Message{
		sent("orders", sampledParent), sent("orders", "", relay.HeaderReplayID, "r"), sent("orders", sampledParent), sent("orders", ""), sent("bills", ""),
	}
	results := p.Publish(t.Context(), msgs)
	require.Equal(t, []error{nil, nil, away, brokers.ErrHeld, bad}, results, "handed on as they are")

	const name = "messaging.client.sent.messages"
	topic, class := attribute.Key("messaging.destination.name"), attribute.Key("error.type")
	require.EqualValues(t, 2, b.sum(name, topic.String("orders"), class.String("")))
	require.EqualValues(t, 1, b.sum(name, topic.String("orders"), class.String("unavailable")))
	require.EqualValues(t, 1, b.sum(name, topic.String("orders"), class.String("held")))
	require.EqualValues(t, 1, b.sum(name, topic.String("bills"), class.String("destination")))
	require.EqualValues(t, 1, b.sum("messaging.client.operation.duration", class.String("unavailable")), "one call, its first failure")
	require.EqualValues(t, 1, b.sum("outboxkit.relay.latency"), "neither what failed nor what is replayed has one")
	require.EqualValues(t, 2*len("k12345"), b.sum("outboxkit.relay.sent.size"))

	spans := b.spans.Ended()
	require.Len(t, spans, 2, "what is not sampled has none")
	require.Equal(t, codes.Unset, spans[0].Status().Code)
	require.Equal(t, codes.Error, spans[1].Status().Code)
	require.Contains(t, spans[1].Status().Description, "no route to host")
	require.ErrorIs(t, p.Close(), errClosed)
}

// A publisher that breaks its contract is the relay's business.
func TestPublisherHandsOddResultsOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.Publisher(answers{nil}, telemetry.Pipeline{})
	require.Len(t, p.Publish(t.Context(), []brokers.Message{sent("a", ""), sent("b", "")}), 1)
	require.Zero(t, b.sum("messaging.client.sent.messages"))
}

// Headers come from anybody who may insert into the outbox.
func TestOddTraceHeadersCostNoSpan(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	odd := []string{"00-", "not a traceparent, but a text that is as long as one is...1", "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	var msgs []brokers.Message
	for _, parent := range odd {
		msgs = append(msgs, sent("orders", parent))
	}
	b.Publisher(make(answers, len(odd)), telemetry.Pipeline{}).Publish(t.Context(), msgs)
	require.Empty(t, b.spans.Ended())
	require.EqualValues(t, len(odd), b.sum("messaging.client.sent.messages"))
}

func TestWhenAnEventWasWritten(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	id := uuid.Must(uuid.NewV7())
	seconds, nanos := id.Time().UnixTime()
	require.Equal(t, time.Unix(seconds, nanos).UnixMilli(), telemetry.Written(id.String(), at).UnixMilli())
	for _, other := range []string{"", "42", uuid.NewString(), "zzzzzzzz-zzzz-7zzz-zzzz-zzzzzzzzzzzz"} {
		require.Equal(t, at, telemetry.Written(other, at), other)
	}
}

// What an event costs, of a page as the relay publishes it.
func BenchmarkPublisher(b *testing.B) {
	for _, c := range []struct{ name, parent string }{{"metrics", ""}, {"sampled", sampledParent}} {
		b.Run(c.name, func(b *testing.B) {
			t, err := telemetry.New(telemetry.Config{
				Meters:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
				Tracers: sdktrace.NewTracerProvider(),
			})
			require.NoError(b, err)
			const events = 4500
			msgs := make([]brokers.Message, events)
			for i := range msgs {
				msgs[i] = sent("orders", c.parent)
			}
			p := t.Publisher(make(answers, events), telemetry.Pipeline{Name: "kafka", System: "kafka"})
			b.ReportAllocs()
			for b.Loop() {
				p.Publish(b.Context(), msgs)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
		})
	}
}
