// Package notification writes a message to the user for each order: a second,
// independent consumer of the same events.
package notification

import (
	"context"
	_ "embed"
	"fmt"
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
		Consumer: "notification", From: from, Wire: events.Wire(), Logger: log,
	})
	if err != nil {
		return nil, err
	}
	inbox.On(in, events.OrderPlacedV1, notify)
	return in, nil
}

// notify stores the message for a mailer to send, with the event's id. It sends
// nothing itself: a mail cannot be rolled back, so a mail server must be given
// the id and told apart by it what it has already sent.
func notify(ctx context.Context, tx pgx.Tx, e inbox.Event[events.OrderPlaced]) error {
	body := fmt.Sprintf("Thank you, %s: we have your order %s of %d items.", e.Data.UserID, e.Data.OrderID, len(e.Data.Items))
	_, err := tx.Exec(ctx, `INSERT INTO messages (order_id, user_id, body, event_id) VALUES ($1::text::bigint, $2, $3, $4)`,
		e.Data.OrderID, e.Data.UserID, body, e.ID)
	return err
}
