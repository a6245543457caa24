package telemetry

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/relay"
)

// Pipeline says whose publisher it is.
type Pipeline struct {
	Database string // as for ObserveRelay; may be empty where there is one
	Name     string // as relay.Pipeline.Name
	System   string // kafka, rabbitmq
}

// Publisher returns a publisher that hands everything on to another and records
// what came of it: counts, sizes, durations, and a span for each event whose trace
// is sampled. Messages are not changed. Closing it closes the other.
func (t *Telemetry) Publisher(to brokers.Publisher, of Pipeline) brokers.Publisher {
	attrs := []attribute.KeyValue{
		attribute.String(attrSystem, of.System), attribute.String(attrDatabase, of.Database), attribute.String(attrPipeline, of.Name),
	}
	return &publisher{Publisher: to, t: t, attrs: attrs}
}

type publisher struct {
	brokers.Publisher
	t     *Telemetry
	attrs []attribute.KeyValue

	sets sync.Map // setKey: metric.MeasurementOption
	kept atomic.Int32
}

// maxSets bounds what is kept, whatever topics services think of; the rest is made
// each time.
const maxSets = 10_000

// class is an event's outcome, for error.type.
func class(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, brokers.ErrHeld):
		return "held"
	default:
		return brokers.ClassOf(err).String()
	}
}

// Publish implements [brokers.Publisher].
func (p *publisher) Publish(ctx context.Context, msgs []brokers.Message) []error {
	began := time.Now()
	results := p.Publisher.Publish(ctx, msgs)
	ended := time.Now()
	if len(results) != len(msgs) { // the relay says so
		return results
	}
	p.count(ctx, msgs, results, ended)
	failed := ""
	for i := range results {
		if c := class(results[i]); c != "" && failed == "" {
			failed = c
		}
		if sampled(msgs[i].Headers) {
			p.span(ctx, &msgs[i], results[i], began, ended)
		}
	}
	p.t.send.Record(ctx, ended.Sub(began).Seconds(), p.set(setKey{class: failed, call: true}))
	return results
}

// count adds once for each topic and outcome, and takes the latency of each event.
// Nearly always a call is of one topic and all of it is confirmed.
func (p *publisher) count(ctx context.Context, msgs []brokers.Message, results []error, now time.Time) {
	type sum struct {
		events, bytes int64
		way           []metric.RecordOption
	}
	sums := map[setKey]*sum{}
	var key setKey
	var s *sum // of key
	for i := range msgs {
		m := &msgs[i]
		if k := (setKey{topic: m.Topic, class: class(results[i])}); s == nil || k != key {
			if key, s = k, sums[k]; s == nil {
				s = &sum{way: []metric.RecordOption{p.set(setKey{topic: m.Topic, plain: true})}}
				sums[k] = s
			}
		}
		s.events++
		s.bytes += int64(len(m.Payload) + len(m.Key))
		if key.class != "" || m.Headers[relay.HeaderReplayID] != "" {
			continue
		}
		if at := written(m.ID, m.Time); !at.IsZero() {
			p.t.relayed.Record(ctx, ago(at, now), s.way...)
		}
	}
	for key, s := range sums {
		p.t.sent.Add(ctx, s.events, p.set(key))
		if key.class == "" {
			p.t.sentSize.Add(ctx, s.bytes, p.set(setKey{topic: key.topic, plain: true}))
		}
	}
}

// setKey chooses attributes.
type setKey struct {
	topic, class string
	call         bool // of a whole call: no topic
	plain        bool // no operation
}

// set returns the attributes of a measurement: making them costs more than the
// measurement itself.
func (p *publisher) set(key setKey) metric.MeasurementOption {
	if opt, ok := p.sets.Load(key); ok {
		return opt.(metric.MeasurementOption)
	}
	attrs := append([]attribute.KeyValue{}, p.attrs...)
	if !key.call {
		attrs = append(attrs, attribute.String(attrDestination, key.topic))
	}
	if !key.plain {
		attrs = append(attrs, attribute.String(attrOperation, "send"))
	}
	if key.class != "" {
		attrs = append(attrs, attribute.String(attrError, key.class))
	}
	opt := metric.WithAttributeSet(attribute.NewSet(attrs...))
	if p.kept.Load() < maxSets {
		p.kept.Add(1)
		p.sets.Store(key, opt)
	}
	return opt
}

// span records the sending of an event below the request that wrote it. It is made
// afterwards: an event that is not sent needs none.
func (p *publisher) span(ctx context.Context, m *brokers.Message, err error, began, ended time.Time) {
	from := parent(m.Headers)
	if !from.IsValid() {
		return
	}
	attrs := append([]attribute.KeyValue{
		attribute.String(attrOperation, "send"), attribute.String(attrOpType, "send"),
		attribute.String(attrDestination, m.Topic), attribute.String(attrMessageID, m.ID), attribute.Int(attrBodySize, len(m.Payload)),
	}, p.attrs...)
	_, span := p.t.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, from), "send "+m.Topic,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(began), trace.WithAttributes(attrs...))
	if err != nil {
		span.SetAttributes(attribute.String(attrError, class(err)))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(trace.WithTimestamp(ended))
}
