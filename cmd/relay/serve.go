package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.yaml.in/yaml/v3"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/relay"
)

func run(ctx context.Context, c config, path string) (err error) {
	log := c.Log.logger()
	a := newAdapters(log)
	defer func() { err = errors.Join(err, a.Close()) }()
	tel, err := newInstrumented(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := tel.Close(); err != nil { // what was published is published
			log.Warn("relay: telemetry", "error", err)
		}
	}()
	list := c.each()
	var services []*service
	relays := map[string]*relay.Relay{}
	for _, d := range list {
		log := log
		if len(c.Databases) > 0 {
			log = log.With("database", d.Name)
		}
		c.Database, c.Pipelines = d.databaseConfig, d.Pipelines
		pool, err := openPool(ctx, c)
		if err != nil {
			return err
		}
		defer pool.Close()
		cfg, err := c.relay(a, log)
		if err != nil {
			return err
		}
		tel.publishers(d.Name, &cfg, c.Pipelines)
		r, err := relay.New(pool, cfg)
		if err != nil {
			return err
		}
		if err := tel.relay(r, pool, d); err != nil {
			return err
		}
		relays[d.Name] = r
		services = append(services, &service{name: d.Name, run: r.Run, log: log})
	}
	admin, err := startAdmin(ctx, c.Admin, tel.export.Metrics, tel.relays, log)
	if err != nil {
		return err
	}
	defer admin.Close() //nolint:errcheck // nil
	if err := admin.showPage(ctx, c, path, relays); err != nil {
		return err
	}
	defer tel.watch(ctx)()
	log.Info("relay: started", "pid", os.Getpid(), "databases", len(list), "pipelines", len(c.Pipelines))
	if err := serve(ctx, services); err != nil {
		return err
	}
	log.Info("relay: drained and stopped")
	return nil
}

// relay is the engine's configuration for one database.
func (c config) relay(a *adapters, log *slog.Logger) (relay.Config, error) {
	cfg := relay.Config{
		Schema: c.Database.Schema, Instance: c.Instance, Logger: log,
		Lease: c.Lease.value(), Retention: c.Retention.value(), DrainTimeout: c.DrainTimeout.value(),
	}
	for _, p := range c.Pipelines {
		wire, err := a.wire(p.Wire)
		if err != nil {
			return cfg, fmt.Errorf("pipeline %s: %w", p.Name, err)
		}
		to, err := a.publisher(p)
		if err != nil {
			return cfg, fmt.Errorf("pipeline %s: %w", p.Name, err)
		}
		cfg.Pipelines = append(cfg.Pipelines, relay.Pipeline{
			Name: p.Name, To: to, Wire: wire, Filter: p.filter(), Topic: p.topic(), Start: p.start(), BlockKey: p.BlockKey,
			Validate: p.validator(),
		})
	}
	return cfg, nil
}

// adapters are shared by all databases: two hundred databases that publish to one
// broker in the same way need one client.
type adapters struct {
	log        *slog.Logger
	publishers map[string]brokers.Publisher
	wires      map[string]event.WireFormat
}

func newAdapters(log *slog.Logger) *adapters {
	return &adapters{log: log, publishers: map[string]brokers.Publisher{}, wires: map[string]event.WireFormat{}}
}

func (a *adapters) publisher(p pipelineConfig) (brokers.Publisher, error) {
	key, err := yaml.Marshal(pipelineConfig{Kafka: p.Kafka, RabbitMQ: p.RabbitMQ})
	if err != nil {
		return nil, err
	}
	if to, ok := a.publishers[string(key)]; ok {
		return to, nil
	}
	var to brokers.Publisher
	if p.Kafka != nil {
		to = kafka.NewPublisher(p.Kafka.config(a.log))
	} else {
		to = rabbitmq.NewPublisher(p.RabbitMQ.config(a.log))
	}
	to = marked(to)
	a.publishers[string(key)] = to
	return to, nil
}

func (a *adapters) wire(w wireConfig) (event.WireFormat, error) {
	key, err := yaml.Marshal(w)
	if err != nil {
		return nil, err
	}
	if f, ok := a.wires[string(key)]; ok {
		return f, nil
	}
	f, err := w.format()
	a.wires[string(key)] = f
	return f, err
}

// Close closes all publishers.
func (a *adapters) Close() error {
	var errs []error
	for _, to := range a.publishers {
		errs = append(errs, to.Close())
	}
	return errors.Join(errs...)
}

// service is one database's relay.
type service struct {
	name string
	run  func(context.Context) error
	log  *slog.Logger
}

// servedAfter is how long a relay must have run to count as working again.
const servedAfter = 10 * time.Second

// serve runs all until ctx ends. With several, one that gives up is run again
// while the others go on; it returns when all have given up.
func serve(ctx context.Context, services []*service) error {
	if len(services) == 1 {
		return services[0].run(ctx)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	b := &board{failed: map[*service]error{}, all: len(services), stop: stop}
	var running sync.WaitGroup
	for _, s := range services {
		running.Go(func() { s.keep(ctx, b) })
	}
	running.Wait()
	return b.err()
}

// keep runs a relay again when it gives up, because a person may have mended what
// was wrong.
func (s *service) keep(ctx context.Context, b *board) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = time.Second, time.Minute
	for ctx.Err() == nil {
		works := time.AfterFunc(servedAfter, func() { b.works(s) })
		began := time.Now()
		err := s.run(ctx)
		works.Stop()
		if err == nil {
			return // ctx has ended, and it has drained
		}
		b.fails(s, err)
		if time.Since(began) > servedAfter {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		s.log.Error("relay: this database is NOT SERVED, the others go on; trying again", "in", wait, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// board knows which databases are not served.
type board struct {
	mu     sync.Mutex
	failed map[*service]error
	all    int
	stop   func()
}

func (b *board) works(s *service) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, s)
}

// fails ends everything when nothing is left that works: whoever supervises the
// process should see that.
func (b *board) fails(s *service, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed[s] = err
	if len(b.failed) == b.all {
		b.stop()
	}
}

// err names what was not served at the end.
func (b *board) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for s, err := range b.failed {
		errs = append(errs, fmt.Errorf("database %s: %w", s.name, err))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d databases were not served: %w", len(errs), b.all, errors.Join(errs...))
}
