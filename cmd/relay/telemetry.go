package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"

	"github.com/outboxkit/outboxkit/internal/otelexport"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/relay/health"
	"github.com/outboxkit/outboxkit/telemetry"
)

// instrumented is the daemon's telemetry.
type instrumented struct {
	*telemetry.Telemetry

	export *otelexport.Export
	log    *slog.Logger
	relays []health.Relay

	watches []func(context.Context) // of the databases
	stops   []func() error
}

// exportTimeout bounds what a collector that does not answer may cost at the end.
const exportTimeout = 5 * time.Second

func newInstrumented(ctx context.Context, c config, log *slog.Logger) (*instrumented, error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("relay: telemetry", "error", err) }))
	instance := c.Instance
	if instance == "" {
		instance, _ = os.Hostname()
	}
	export, err := otelexport.Start(ctx, otelexport.Config{Service: "outboxkit-relay", Version: buildVersion(), Instance: instance})
	if err != nil {
		return nil, err
	}
	t, err := telemetry.New(telemetry.Config{Meters: export.Meters, Tracers: export.Tracers})
	if err != nil {
		return nil, errors.Join(err, export.Shutdown(ctx))
	}
	return &instrumented{Telemetry: t, export: export, log: log}, nil
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// publishers puts itself around the pipelines' publishers.
func (i *instrumented) publishers(database string, cfg *relay.Config, list []pipelineConfig) {
	for n := range cfg.Pipelines {
		p := &cfg.Pipelines[n]
		system := "rabbitmq"
		if list[n].Kafka != nil {
			system = "kafka"
		}
		p.To = i.Publisher(p.To, telemetry.Pipeline{Database: database, Name: p.Name, System: system})
	}
}

// relay exports what a relay, its pool and its database tell.
func (i *instrumented) relay(r *relay.Relay, pool *pgxpool.Pool, d databaseEntry) error {
	name := d.Name
	i.relays = append(i.relays, health.Relay{Database: name, Health: r.Health})
	stop, err := i.ObserveRelay(r, name)
	if err != nil {
		return err
	}
	i.stops = append(i.stops, stop)
	poolName := name
	if poolName == "" {
		poolName = "relay"
	}
	if stop, err = i.ObservePool(pool, poolName); err != nil {
		return err
	}
	i.stops = append(i.stops, stop)
	i.watches = append(i.watches, func(ctx context.Context) {
		if err := i.WatchOutbox(ctx, pool, d.Schema, name); err != nil {
			i.log.Warn("relay: telemetry", "database", name, "error", err)
		}
	})
	return nil
}

// watch looks at the databases until stop is called, which waits for it: the pools
// are closed after that. It goes on while the relays drain.
func (i *instrumented) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	for _, w := range i.watches {
		watching.Go(func() { w(ctx) })
	}
	return func() {
		cancel()
		watching.Wait()
	}
}

// Close hands over what was recorded.
func (i *instrumented) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), exportTimeout)
	defer cancel()
	// The last collection comes before the callbacks go.
	err := i.export.Shutdown(ctx)
	for _, stop := range i.stops {
		err = errors.Join(err, stop())
	}
	return err
}
