// Package inventory reserves the items of each order: a consumer.
package inventory

import (
	"context"
	_ "embed"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/examples/demo/events"
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
		Consumer: "inventory", From: from, Wire: events.Wire(), Logger: log,
	})
	if err != nil {
		return nil, err
	}
	inbox.On(in, events.OrderPlacedV1, reserve)
	return in, nil
}

// reserve does what it does through tx, and so once, however often the event is
// delivered.
func reserve(ctx context.Context, tx pgx.Tx, e inbox.Event[events.OrderPlaced]) error {
	_, err := tx.Exec(ctx, `INSERT INTO reservations (order_id, user_id, items) VALUES ($1::text::bigint, $2, $3)`,
		e.Data.OrderID, e.Data.UserID, e.Data.Items)
	return err
}
