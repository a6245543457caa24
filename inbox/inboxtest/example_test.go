package inboxtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox/outboxtest"
	"github.com/outboxkit/outboxkit/postgrestest"
)

// inventory is the service's own function that makes its inbox.
func inventory(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
	in, err := inbox.New(pool, inbox.Config{Consumer: "inventory", From: from})
	if err == nil {
		inbox.On(in, placed, reserve)
	}
	return in, err
}

func migrateInventory(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, tables)
	return err
}

// Events go through the real inbox, without a broker.
func ExampleConsumer_Deliver() {
	consumer := inboxtest.Consumer{New: inventory}
	test := func(t *testing.T) {
		pool := postgrestest.Pool(t, migrate.Inbox("").Up, migrateInventory)
		consumer.Deliver(t, pool, placed.New(order{ID: "o-1", SKU: "tea", Qty: 2}))
		var qty int
		if err := pool.QueryRow(t.Context(), `SELECT qty FROM stock WHERE sku = 'tea'`).Scan(&qty); err != nil || qty != 998 {
			t.Errorf("%d pieces of tea, %v", qty, err)
		}
	}
	_ = test
}

// An event that cannot be handled is a dead letter in the end.
func ExampleConsumer_Try() {
	consumer := inboxtest.Consumer{New: inventory}
	test := func(t *testing.T) {
		pool := postgrestest.Pool(t, migrate.Inbox("").Up, migrateInventory)
		result := consumer.Try(t, pool, placed.New(order{ID: "o-1", SKU: "tea", Qty: 1 << 40}))
		if len(result.Dead) != 1 || result.Dead[0].Reason != "attempts" {
			t.Error(result.Dead)
		}
	}
	_ = test
}

// However the orders arrive, the stock is the same.
func ExampleConsumer_RequireIdempotent() {
	consumer := inboxtest.Consumer{New: inventory}
	test := func(t *testing.T) {
		consumer.RequireIdempotent(t, inboxtest.Stress{
			Events: []event.Draft{ // two keys, one row of stock
				placed.New(order{ID: "o-1", SKU: "tea", Qty: 2}), placed.New(order{ID: "o-2", SKU: "tea", Qty: 3}),
				placed.New(order{ID: "o-1", SKU: "milk", Qty: 1}), placed.New(order{ID: "o-2", SKU: "milk", Qty: 5}),
			},
			Database: func(t testing.TB) *pgxpool.Pool {
				return postgrestest.Pool(t, migrate.Inbox("").Up, migrateInventory)
			},
			Snapshot: inboxtest.Query(`SELECT sku, qty FROM stock`),
		})
	}
	_ = test
}

// The events that a handler writes are looked at in its transaction.
func ExampleHandle() {
	test := func(t *testing.T, tx pgx.Tx, handle func(context.Context, pgx.Tx, inbox.Event[order]) error) {
		if err := inboxtest.Handle(t, tx, handle, placed.New(order{ID: "o-1"})); err != nil {
			t.Fatal(err)
		}
		outboxtest.RequireWritten(t, tx, reservedV1, reserved{OrderID: "o-1"})
	}
	_ = test
}
