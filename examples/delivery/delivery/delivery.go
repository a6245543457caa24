// Package delivery is the delivery service: it translates what drones report into
// what happens to deliveries. Handling a report and writing the event that
// follows from it are one transaction, so each report is translated once, however
// often it is delivered and whatever is killed meanwhile.
package delivery

import (
	"context"
	_ "embed"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/relay"
)

//go:embed schema.sql
var schema string

// Migrate creates the service's tables, the inbox and the outbox beside them.
func Migrate(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, schema); err != nil {
		return err
	}
	if err := migrate.Inbox("").Up(ctx, conn); err != nil {
		return err
	}
	return migrate.Outbox("").Up(ctx, conn)
}

// Config is what the service is deployed with.
type Config struct {
	Pool *pgxpool.Pool
	From brokers.Subscriber // of the topic drones
	To   brokers.Publisher  // closed by the caller
	// Topic is the broker's name of a topic.
	Topic func(string) string
	Log   *slog.Logger
}

// Run is the service: inbox and relay in one process. It returns when ctx has
// ended and both have drained.
func Run(ctx context.Context, cfg Config) error {
	in, err := newInbox(ctx, cfg.Pool, cfg.From, cfg.Log)
	if err != nil {
		return err
	}
	r, err := relay.New(cfg.Pool, relay.Config{
		Pipelines: []relay.Pipeline{{Name: "deliveries", To: cfg.To, Wire: events.Wire(), Topic: cfg.Topic}},
		Lease:     2 * time.Second, // how long the next process waits for a killed one
		Logger:    cfg.Log,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return in.Run(ctx) })
	g.Go(func() error { return r.Run(ctx) })
	return g.Wait()
}

func newInbox(ctx context.Context, pool *pgxpool.Pool, from brokers.Subscriber, log *slog.Logger) (*inbox.Inbox, error) {
	ob, err := outbox.New(ctx, pool, outbox.Config{
		Source: "/delivery",
		Types: []event.Any{
			events.DeliveryCreated, events.DeliveryRescheduled, events.DeliveryInTransit,
			events.DeliveryCompleted, events.DeliveryCancelled,
		},
	})
	if err != nil {
		return nil, err
	}
	in, err := inbox.New(pool, inbox.Config{
		Consumer: "delivery", From: from, Wire: events.Wire(), Logger: log,
		// Positions have no handler and are ignored: the default.
	})
	if err != nil {
		return nil, err
	}
	inbox.On(in, events.DroneStatusReported, translator{ob}.handle, inbox.Timeout(5*time.Second))
	return in, nil
}
