// Package history is the delivery history service: it keeps, in a database of its
// own, what has happened to each delivery, and a view of where each is now.
package history

import (
	"context"
	_ "embed"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/migrate"
)

//go:embed schema.sql
var schema string

// Migrate creates the service's tables and the inbox beside them.
func Migrate(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, schema); err != nil {
		return err
	}
	return migrate.Inbox("").Up(ctx, conn)
}

// New returns the service's inbox; its Run is the service.
func New(pool *pgxpool.Pool, from brokers.Subscriber, log *slog.Logger) (*inbox.Inbox, error) {
	in, err := inbox.New(pool, inbox.Config{
		Consumer: "history", From: from, Wire: events.Wire(), Logger: log,
		// Whatever is on this topic belongs into the history: a type that it does
		// not know is kept for the version that does.
		Unknown: inbox.UnknownDeadLetter,
	})
	if err != nil {
		return nil, err
	}
	on(in, events.DeliveryCreated, "created", func(e events.Created) entry {
		return entry{e.DeliveryID, e.DroneID, e.ArrivesAt, e.DroneID + " takes it"}
	})
	on(in, events.DeliveryRescheduled, "rescheduled", func(e events.Rescheduled) entry {
		return entry{e.DeliveryID, e.DroneID, e.ArrivesAt, e.Reason + ": " + e.DroneID}
	})
	on(in, events.DeliveryInTransit, "in transit", func(e events.InTransit) entry {
		return entry{delivery: e.DeliveryID, drone: e.DroneID, detail: e.DroneID + " flies"}
	})
	on(in, events.DeliveryCompleted, "completed", func(e events.Completed) entry {
		return entry{delivery: e.DeliveryID, drone: e.DroneID, detail: "dropped off by " + e.DroneID}
	})
	on(in, events.DeliveryCancelled, "cancelled", func(e events.Cancelled) entry {
		return entry{delivery: e.DeliveryID, detail: e.Reason}
	})
	return in, nil
}

// entry is what the history keeps of an event. Empty fields leave the view as it is.
type entry struct {
	delivery, drone string
	arrivesAt       time.Time
	detail          string
}

func on[T any](in *inbox.Inbox, typ event.Type[T], what string, of func(T) entry) {
	inbox.On(in, typ, func(ctx context.Context, tx pgx.Tx, e inbox.Event[T]) error {
		return record(ctx, tx, e.Envelope, what, of(e.Data))
	})
}

func record(ctx context.Context, tx pgx.Tx, e event.Envelope, what string, en entry) error {
	_, err := tx.Exec(ctx, `INSERT INTO history (delivery_id, what, detail, event_id, caused_by, request, happened_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, en.delivery, what, en.detail, e.ID, e.CausationID, e.CorrelationID, e.Time)
	if err != nil {
		return err
	}
	var arrivesAt *time.Time
	if !en.arrivesAt.IsZero() {
		arrivesAt = &en.arrivesAt
	}
	_, err = tx.Exec(ctx, `INSERT INTO delivery_view AS v (delivery_id, state, drone_id, arrives_at, changes) VALUES ($1, $2, $3, $4, 1)
		ON CONFLICT (delivery_id) DO UPDATE SET state = $2, drone_id = coalesce(nullif($3, ''), v.drone_id),
			arrives_at = coalesce($4, v.arrives_at), changes = v.changes + 1`, en.delivery, what, en.drone, arrivesAt)
	return err
}
