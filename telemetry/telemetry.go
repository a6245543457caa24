package telemetry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// scope names what this package records, in OpenTelemetry's sense.
const scope = "github.com/outboxkit/outboxkit/telemetry"

// Config says where metrics and spans go.
type Config struct {
	// Meters makes the instruments. Default: OpenTelemetry's global provider.
	Meters metric.MeterProvider
	// Tracers makes the spans. Default: OpenTelemetry's global provider.
	Tracers trace.TracerProvider
}

// Telemetry holds the instruments. One serves a whole process. Its methods may be
// called concurrently.
type Telemetry struct {
	meter    metric.Meter
	tracer   trace.Tracer
	observed map[string]metric.Float64Observable // by Metric.Name
	every    time.Duration                       // between looks at a database
	stale    time.Duration                       // how old what it said may be

	sent                             metric.Int64Counter
	sentSize                         metric.Int64Counter
	send, relayed, process, consumed metric.Float64Histogram
}

// New makes the instruments. An error is the provider's.
func New(cfg Config) (*Telemetry, error) {
	if cfg.Meters == nil {
		cfg.Meters = otel.GetMeterProvider()
	}
	if cfg.Tracers == nil {
		cfg.Tracers = otel.GetTracerProvider()
	}
	t := &Telemetry{
		meter: cfg.Meters.Meter(scope), tracer: cfg.Tracers.Tracer(scope),
		observed: map[string]metric.Float64Observable{}, every: watchEvery, stale: watchStale,
	}
	m := maker{meter: t.meter}
	t.sent, t.sentSize = m.counter(sentMessages), m.counter(sentSize)
	t.send, t.relayed = m.histogram(sendDuration), m.histogram(relayLatency)
	t.process, t.consumed = m.histogram(processDuration), m.histogram(inboxLatency)
	for _, d := range observed() {
		t.observed[d.Name] = m.observable(d)
	}
	if m.err != nil {
		return nil, fmt.Errorf("telemetry: %w", m.err)
	}
	return t, nil
}

// maker makes instruments and collects what goes wrong.
type maker struct {
	meter metric.Meter
	err   error
}

func (m *maker) counter(d Metric) metric.Int64Counter {
	c, err := m.meter.Int64Counter(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Text))
	m.err = errors.Join(m.err, err)
	return c
}

func (m *maker) histogram(d Metric) metric.Float64Histogram {
	h, err := m.meter.Float64Histogram(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Text),
		metric.WithExplicitBucketBoundaries(d.bounds...))
	m.err = errors.Join(m.err, err)
	return h
}

func (m *maker) observable(d Metric) metric.Float64Observable {
	if d.Kind == Counter {
		c, err := m.meter.Float64ObservableCounter(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Text))
		m.err = errors.Join(m.err, err)
		return c
	}
	g, err := m.meter.Float64ObservableGauge(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Text))
	m.err = errors.Join(m.err, err)
	return g
}

// report is given a value at a collection.
type report func(d Metric, value float64, attrs ...attribute.KeyValue)

// observe has f report the values of a group at each collection, until stop is
// called. f must not block.
func (t *Telemetry) observe(group []Metric, f func(report)) (stop func() error, err error) {
	instruments := make([]metric.Observable, 0, len(group))
	for _, d := range group {
		instruments = append(instruments, t.observed[d.Name])
	}
	r, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		f(func(d Metric, value float64, attrs ...attribute.KeyValue) {
			o.ObserveFloat64(t.observed[d.Name], value, metric.WithAttributes(attrs...))
		})
		return nil
	}, instruments...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return r.Unregister, nil
}

// flag is 1 for yes.
func flag(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
