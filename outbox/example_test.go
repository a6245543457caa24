package outbox_test

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

// The order and its event commit together, or neither does.
func ExampleOutbox_Write() {
	place := func(ctx context.Context, pool *pgxpool.Pool, ob *outbox.Outbox, o orderPlaced) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, o.OrderID); err != nil {
				return err
			}
			return ob.Write(ctx, tx, orderPlacedV1.New(o))
		})
	}
	_ = place
}

// Services that use database/sql hand over their *sql.Tx.
func ExampleOutbox_WriteSQL() {
	place := func(ctx context.Context, tx *sql.Tx, ob *outbox.Outbox, o orderPlaced) error {
		draft := orderPlacedV1.New(o)
		draft.Headers = map[string]string{"tenant": "eu"}
		return ob.WriteSQL(ctx, tx, draft)
	}
	_ = place
}

// An insert-only ledger has no row to lock, so the event takes its key's lock.
func ExampleOutbox_WithKeyLock() {
	book := func(ctx context.Context, tx pgx.Tx, ob *outbox.Outbox, o orderPlaced) error {
		return ob.WithKeyLock().Write(ctx, tx, orderPlacedV1.New(o))
	}
	_ = book
}

// Events carry the trace of the request that wrote them.
func ExampleConfig_traceHeaders() {
	type traceKey struct{} // stands for a tracing library's propagator
	cfg := outbox.Config{
		Source: "/shop/orders",
		Types:  []event.Any{orderPlacedV1},
		TraceHeaders: func(ctx context.Context) map[string]string {
			parent, _ := ctx.Value(traceKey{}).(string)
			return map[string]string{"traceparent": parent}
		},
	}
	_ = cfg
}
