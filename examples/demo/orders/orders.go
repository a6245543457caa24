// Package orders is the service that takes orders: the producer. It knows
// Postgres and its events, but no broker.
package orders

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
)

//go:embed schema.sql
var schema string

// Migrate creates the service's tables and the outbox beside them.
func Migrate(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, schema); err != nil {
		return err
	}
	return migrate.Outbox("").Up(ctx, conn)
}

// Service takes orders. It is safe for concurrent use.
type Service struct {
	pool   *pgxpool.Pool
	outbox *outbox.Outbox
}

// New returns a service on a migrated database.
func New(ctx context.Context, pool *pgxpool.Pool) (*Service, error) {
	ob, err := outbox.New(ctx, pool, outbox.Config{
		Source: "/shop/orders",
		Types:  []event.Any{events.OrderPlacedV1},
	})
	if err != nil {
		return nil, err
	}
	return &Service{pool: pool, outbox: ob}, nil
}

// Place stores an order together with its event, then charges the user, and
// returns the order's number. If charge fails, neither order nor event exists.
func (s *Service) Place(ctx context.Context, userID string, items []string, charge func() error) (id int64, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Locks the user's row, which is the events' key, from here to the commit:
		// a user's events are in the order of the commits.
		_, err := tx.Exec(ctx, `INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET id = excluded.id`, userID)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `INSERT INTO orders (user_id, items) VALUES ($1, $2) RETURNING id`, userID, items).Scan(&id)
		if err != nil {
			return err
		}
		order := events.OrderPlaced{OrderID: strconv.FormatInt(id, 10), UserID: userID, Items: items}
		if err := s.outbox.Write(ctx, tx, events.OrderPlacedV1.New(order)); err != nil {
			return err
		}
		return charge()
	})
	if err != nil {
		return 0, fmt.Errorf("place an order of %s: %w", userID, err)
	}
	return id, nil
}
