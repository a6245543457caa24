package otelexport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config says who exports.
type Config struct {
	// Service, Version and Instance are the defaults of service.name, service.version
	// and service.instance.id; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
	Service, Version, Instance string
	// Env looks a variable up. Default: os.LookupEnv. The exporters themselves read
	// the process's environment.
	Env func(name string) (string, bool)
}

// Export is a running SDK. Shut it down, or what was recorded last is lost.
type Export struct {
	Meters  metric.MeterProvider
	Tracers trace.TracerProvider // does nothing unless traces are exported
	// Metrics serves /metrics for Prometheus.
	Metrics http.Handler

	shutdowns []func(context.Context) error
}

// Start begins to export. It does not wait for a collector: one that is away costs
// what it would have got.
//
// OTLP is off unless an endpoint is set (OTEL_EXPORTER_OTLP_ENDPOINT, or that of
// the signal) or an exporter is named (OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER);
// the standard's default, a collector on this host, would fill the logs of everybody
// who has none.
func Start(ctx context.Context, cfg Config) (*Export, error) {
	if cfg.Env == nil {
		cfg.Env = os.LookupEnv
	}
	res, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.Instance),
	), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	e := &Export{Tracers: noop.NewTracerProvider()}
	if err := e.startMetrics(ctx, cfg, res); err != nil {
		return nil, err
	}
	if err := e.startTraces(ctx, cfg, res); err != nil {
		return nil, errors.Join(err, e.Shutdown(ctx))
	}
	return e, nil
}

func (e *Export) startMetrics(ctx context.Context, cfg Config, res *resource.Resource) error {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
	}
	// Names are as the documentation has them, whatever the client can read.
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry),
		otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(reader)}
	// The exporter of that name would listen on a port of its own.
	if name, _ := cfg.Env("OTEL_METRICS_EXPORTER"); name != "prometheus" && cfg.wants("METRICS") {
		push, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return fmt.Errorf("telemetry: export metrics: %w", err)
		}
		options = append(options, sdkmetric.WithReader(push))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	e.Meters = provider
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	// One metric that cannot be read must not hide the others.
	e.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return nil
}

func (e *Export) startTraces(ctx context.Context, cfg Config, res *resource.Resource) error {
	if !cfg.wants("TRACES") {
		return nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return fmt.Errorf("telemetry: export traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(exporter))
	e.Tracers = provider
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	return nil
}

// wants tells whether the environment asks for a signal, TRACES or METRICS.
func (c Config) wants(signal string) bool {
	if v, _ := c.Env("OTEL_SDK_DISABLED"); strings.EqualFold(v, "true") {
		return false
	}
	if v, _ := c.Env("OTEL_" + signal + "_EXPORTER"); v != "" {
		return v != "none"
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT"} {
		if v, _ := c.Env(name); v != "" {
			return true
		}
	}
	return false
}

// Shutdown hands over what was recorded and stops, until ctx ends at the latest.
func (e *Export) Shutdown(ctx context.Context) error {
	var errs []error
	for _, shutdown := range e.shutdowns {
		errs = append(errs, shutdown(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("telemetry: the last metrics and spans were not exported: %w", err)
	}
	return nil
}
