package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/migrate"
)

// The whole way: a service commits an order with its event, a relay publishes it
// with its schema's id, a consumer's inbox handles it once. Service, relay and
// consumer are processes with their defaults; the producer's and the consumer's
// database are on one server, whose commits are durable.

func effectFigures() []figure {
	var all []figure
	for _, b := range []struct {
		name string
		to   func(*env) broker
	}{{"kafka", kafkaTarget}, {"rabbitmq", rabbitTarget}} {
		prefix := "effect_" + b.name
		all = append(all,
			figure{prefix + "_latency", effectFigure(prefix, b.to, effectLatency)},
			figure{prefix + "_single_rate," + prefix + "_batch_rate", effectFigure(prefix, b.to, effectRate)},
			figure{prefix + "_single_drain_rate," + prefix + "_batch_drain_rate", effectFigure(prefix, b.to, effectDrain)},
		)
	}
	return all
}

// effect is one figure of the whole way over one broker.
type effect struct {
	*env

	prefix string
	to     broker
	names  []string // of runs, in the order in which they were first added
	units  map[string]string
	runs   map[string][]float64
}

func effectFigure(prefix string, to func(*env) broker, rounds func(context.Context, *effect) error) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) (err error) {
		if e.registry == "" {
			return errors.New("OUTBOXKIT_REGISTRY_URL is not set: start it with `make bench-effect`")
		}
		server, err := postgres.Start(ctx, postgres.Config{Durable: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
		own := *e
		own.postgres = server.URL("postgres")
		f := &effect{env: &own, prefix: prefix, to: to(e), units: map[string]string{}, runs: map[string][]float64{}}
		if err := rounds(ctx, f); err != nil {
			return err
		}
		for _, name := range f.names {
			e.out.add(prefix+"_"+name, f.units[name], f.runs[name])
		}
		return nil
	}
}

// add is a run's result; all runs of a name are reported together.
func (f *effect) add(name, unit string, value float64) {
	if _, ok := f.runs[name]; !ok {
		f.names = append(f.names, name)
		f.units[name] = unit
	}
	f.runs[name] = append(f.runs[name], value)
}

// Applications of the sessions of each process.
const (
	serviceApplication  = "bench-service"
	consumerApplication = "bench-consumer"
)

// line is a service, a relay and a consumer with a database on either side.
type line struct {
	*effect

	topic                    string
	produced, consumed       *database
	service, relay, consumer *relayProcess
	before                   map[string]float64 // CPU of what ran before, in seconds
}

// withLine makes both databases and starts the service; the others when they are
// wanted.
func (f *effect) withLine(ctx context.Context, run func(*line) error) error {
	topic, err := f.to.topic(ctx)
	if err != nil {
		return err
	}
	l := &line{effect: f, topic: topic}
	if l.produced, err = withOrders(ctx, f.env, migrate.Outbox("")); err != nil {
		return err
	}
	defer l.produced.drop()
	if l.consumed, err = withOrders(ctx, f.env, migrate.Inbox("")); err != nil {
		return err
	}
	defer l.consumed.drop()
	l.service, err = startChild(ctx, serviceEnv, serviceSpec{Database: l.produced.urlOf(serviceApplication), Topic: topic})
	if err != nil {
		return err
	}
	err = run(l)
	for _, p := range []*relayProcess{l.service, l.relay, l.consumer} {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	return err
}

// start starts relay and consumer.
func (l *line) start(ctx context.Context, c consumerSpec) (err error) {
	s := spec{Database: l.produced.relayURL(), Registry: l.registry, Stages: c.Stages}
	l.to.relay(&s)
	c.Database, c.Topic, c.Registry, c.Workers, c.Defaults = l.consumed.urlOf(consumerApplication), l.topic, l.registry, workers, true
	if c.AMQP = s.AMQP; c.AMQP == "" {
		c.Kafka, c.Group = s.Kafka, "bench-"+rand.Text()
	}
	if l.relay, err = startRelay(ctx, s); err != nil {
		return err
	}
	l.consumer, err = startChild(ctx, consumerEnv, c)
	return err
}

// effectRate is the most events a second while all work at once: the service goes
// on as long as the consumer is not far behind.
func effectRate(ctx context.Context, f *effect) error {
	return f.inTurn(ctx, func(name string, c consumerSpec) error {
		n := pick(f.env, 60_000, 10_000)
		return f.withLine(ctx, func(l *line) error {
			if err := l.start(ctx, c); err != nil {
				return err
			}
			warm := n / warmPart
			if err := l.push(ctx, 0, warm); err != nil {
				return err
			}
			if err := l.meter(ctx); err != nil {
				return err
			}
			began := time.Now()
			if err := l.push(ctx, warm, warm+n); err != nil {
				return err
			}
			f.add(name+"_rate", "events/s", float64(n)/time.Since(began).Seconds())
			return l.spent(ctx, name, n)
		})
	})
}

// push lets the service write until the consumer has handled so many.
func (l *line) push(ctx context.Context, from, to int) error {
	const ahead, chunk = 5_000, 500
	for written := from; ; {
		a, err := l.consumer.ask("0")
		if err != nil {
			return err
		}
		handled := int(a.Published) //nolint:gosec // small
		switch {
		case handled >= to:
			return nil
		case written < to && written-handled < ahead:
			n := min(chunk, to-written)
			if _, err := l.service.ask(fmt.Sprintf("write %d", n)); err != nil {
				return err
			}
			written += n
		default:
			if err := pause(ctx, 2*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// effectDrain is the rate of a backlog from the outbox to the effects, while
// nobody writes.
func effectDrain(ctx context.Context, f *effect) error {
	return f.inTurn(ctx, func(name string, c consumerSpec) error {
		n := pick(f.env, 60_000, 20_000)
		if c.Batch > 0 {
			n = pick(f.env, 200_000, 40_000)
		}
		return f.withLine(ctx, func(l *line) error {
			if _, err := l.service.ask(fmt.Sprintf("fill %d", n)); err != nil {
				return err
			}
			if err := l.meter(ctx); err != nil {
				return err
			}
			if err := l.start(ctx, c); err != nil {
				return err
			}
			warm := n / warmPart
			first, err := l.consumer.published(warm)
			if err != nil {
				return err
			}
			last, err := l.consumer.published(n)
			if err != nil {
				return err
			}
			f.add(name+"_drain_rate", "events/s", float64(n-warm)/(last-first))
			return l.spent(ctx, name+"_drain", n)
		})
	})
}

// inTurn runs a handler of one event and one of batches, in turn; the first round
// warms up.
func (f *effect) inTurn(ctx context.Context, run func(name string, c consumerSpec) error) error {
	for round := range f.rounds + 1 {
		for _, h := range []struct {
			name string
			spec consumerSpec
		}{{"single", consumerSpec{}}, {"batch", consumerSpec{Batch: batchSize, Bulk: true}}} {
			if err := run(h.name, h.spec); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if round == 0 {
			f.names = nil
			clear(f.runs)
		}
		note("%s: round %d, load %s", f.prefix, round, loadAverage())
	}
	return nil
}
