package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
)

// broker is where a drain goes, by the relay and by the plain client.
type broker interface {
	topic(ctx context.Context) (string, error)
	relay(s *spec)
	// client publishes with the broker's client alone and returns the seconds
	// until the last confirmation.
	client(ctx context.Context, msgs []brokers.Message) (float64, error)
	address() string
}

func kafkaTarget(e *env) broker  { return &kafkaBroker{brokers: e.kafka} }
func rabbitTarget(e *env) broker { return &rabbitBroker{url: e.amqp} }

// drainFigure compares the relay's drain of a backlog with the broker's client
// sending the same messages, in turn.
func drainFigure(name string, to func(*env) broker, keys string) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		f := drain{env: e, name: strings.TrimSuffix(name, "_vs_client"), to: to(e), keys: keys, events: pick(e, 300_000, 60_000)}
		if _, rabbit := f.to.(*rabbitBroker); rabbit {
			f.events = pick(e, 60_000, 15_000)
		}
		warm := f // the first messages of a broker that has just started cost twice as much
		if err := warm.round(ctx); err != nil {
			return err
		}
		for range e.rounds {
			if err := f.round(ctx); err != nil {
				return err
			}
		}
		e.out.add(name, "ratio", ratios(f.ours, f.theirs))
		e.out.add(f.name+"_relay_rate", "events/s", f.ours)
		e.out.add(f.name+"_client_rate", "events/s", f.theirs)
		for _, c := range []string{"relay", "postgres", "broker", "client", "broker_client"} {
			e.out.add(f.name+"_cpu_"+c, "s/1M events", f.cpu[c])
		}
		return nil
	}
}

type drain struct {
	*env

	name         string
	to           broker
	keys         string
	events       int
	ours, theirs []float64            // events a second
	cpu          map[string][]float64 // seconds per million events
}

func (f *drain) round(ctx context.Context) error {
	topic, err := f.to.topic(ctx)
	if err != nil {
		return err
	}
	db, err := newDatabase(ctx, f.env)
	if err != nil {
		return err
	}
	defer db.drop()
	if err := db.fill(ctx, topic, f.keys, f.events); err != nil {
		return err
	}
	msgs, err := db.messages(ctx)
	if err != nil {
		return err
	}
	if err := f.relayRound(ctx, db); err != nil {
		return err
	}
	before, own := cpuSeconds(listener(f.to.address())), cpuSeconds(os.Getpid())
	took, err := f.to.client(ctx, msgs)
	if err != nil {
		return err
	}
	f.spent("client", cpuSeconds(os.Getpid())-own)
	f.spent("broker_client", cpuSeconds(listener(f.to.address()))-before)
	f.theirs = append(f.theirs, float64(f.events)/took)
	note("%s: relay %.0f/s, client %.0f/s, load %s", f.name, f.ours[len(f.ours)-1], f.theirs[len(f.theirs)-1], loadAverage())
	return nil
}

func (f *drain) relayRound(ctx context.Context, db *database) error {
	postgres, broker := listener(host(f.postgres)), listener(f.to.address())
	beforeP, beforeB := treeSeconds(postgres), cpuSeconds(broker)
	s := spec{Database: db.url, Profile: os.Getenv("BENCH_PROFILE")}
	f.to.relay(&s)
	r, err := startRelay(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = r.stop() }()
	took, err := r.published(f.events)
	if err != nil {
		return err
	}
	f.ours = append(f.ours, float64(f.events)/took)
	f.spent("relay", cpuSeconds(r.pid()))
	f.spent("postgres", treeSeconds(postgres)-beforeP)
	f.spent("broker", cpuSeconds(broker)-beforeB)
	return r.stop()
}

func (f *drain) spent(what string, seconds float64) {
	if f.cpu == nil {
		f.cpu = map[string][]float64{}
	}
	f.cpu[what] = append(f.cpu[what], seconds*1e6/float64(f.events))
}

// messages reads the log as what a broker gets.
func (d *database) messages(ctx context.Context) ([]brokers.Message, error) {
	rows, err := d.Query(ctx, `SELECT topic, key, event_id::text, source, type, created_at, content_type, correlation_id,
  headers->>'traceparent', payload FROM outbox.event ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (brokers.Message, error) {
		var m brokers.Message
		var parent string
		err := row.Scan(&m.Topic, &m.Key, &m.ID, &m.Source, &m.Type, &m.Time, &m.ContentType, &m.CorrelationID, &parent, &m.Payload)
		m.Headers = map[string]string{"traceparent": parent}
		return m, err
	})
}

// host returns the host and port of a URL.
func host(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

// attributes are the CloudEvents of a message that both clients send.
func attributes(m *brokers.Message, prefix string) [][2]string {
	return [][2]string{
		{prefix + "specversion", "1.0"}, {prefix + "id", m.ID}, {prefix + "source", m.Source}, {prefix + "type", m.Type},
		{prefix + "time", m.Time.UTC().Format(time.RFC3339Nano)}, {prefix + "correlationid", m.CorrelationID},
		{"traceparent", m.Headers["traceparent"]},
	}
}
