package inboxtest_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/outbox/outboxtest"
)

func lines(t *testing.T, pool *pgxpool.Pool) (ids []string) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT order_id FROM line ORDER BY n`)
	require.NoError(t, err)
	ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return ids
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	pool := database(t)
	c := consumer(func(*pgxpool.Pool) handle { return reserve })
	a, b := placed.New(order{ID: "a", SKU: "tea", Qty: 1}), placed.New(order{ID: "b", SKU: "tea", Qty: 1})
	a.ID = "an id of its own"
	r := c.Deliver(t, pool, a, b)
	require.EqualValues(t, 2, r.Handled)
	require.Equal(t, []string{"a", "b"}, lines(t, pool), "handled, one after the other, when Deliver returns")
	r = c.Deliver(t, pool, a)
	require.EqualValues(t, 1, r.Duplicates)
	require.Equal(t, []string{"a", "b"}, lines(t, pool))
	require.EqualValues(t, 1, c.Deliver(t, pool, b).Handled, "a draft without id is another event")
	require.Zero(t, c.Deliver(t, pool).Handled)
}

func TestTryTellsWhatBecameOfEach(t *testing.T) {
	t.Parallel()
	pool := database(t)
	c := consumer(func(*pgxpool.Pool) handle {
		return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
			switch {
			case e.Tombstone:
				return nil
			case e.Data.SKU == "":
				return inbox.Permanent(errors.New("no SKU"))
			case e.Data.Qty == 0:
				return errors.New("nothing ordered")
			}
			return reserve(ctx, tx, e)
		}
	})
	events := []event.Draft{
		placed.New(order{ID: "good", SKU: "tea", Qty: 1}), placed.New(order{ID: "empty", SKU: "tea"}),
		placed.New(order{ID: "no sku"}), placed.New(order{ID: "empty", SKU: "tea", Qty: 1}), // behind the dead one
		placed.Tombstone("gone"), reservedV1.New(reserved{"unknown"}),
	}
	r := c.Try(t, pool, events...)
	require.EqualValues(t, 2, r.Handled)
	require.EqualValues(t, 1, r.Ignored)
	require.Equal(t, []string{"good"}, lines(t, pool))
	for i := range r.Dead {
		require.NotEmpty(t, r.Dead[i].ID)
		r.Dead[i].ID = ""
	}
	require.Equal(t, []inboxtest.DeadLetter{
		{Type: placed.Name, Topic: "orders", Key: "empty", State: "dead", Reason: "attempts", Error: "nothing ordered", Attempts: 3},
		{Type: placed.Name, Topic: "orders", Key: "no sku", State: "dead", Reason: "permanent", Error: "no SKU", Attempts: 1},
		{Type: placed.Name, Topic: "orders", Key: "empty", State: "blocked", Reason: "blocked"},
	}, r.Dead)
	require.Empty(t, c.Try(t, pool, events[0]).Dead, "those of other calls are not listed")

	text := failure(t, func(t testing.TB) {
		c.Deliver(t, pool, placed.New(order{ID: "no sku either"}), events[3], events[5])
	})
	require.Contains(t, text, `shop.order.placed of key "no sku either"`)
	require.Contains(t, text, "is blocked: it waits behind a dead letter of its key")
	require.Contains(t, text, "is dead: permanent after 1 attempts: no SKU")
	require.Contains(t, text, "1 events were ignored")
}

// framed is a wire format with one letter in front.
type framed struct{}

func (framed) Seal(_ context.Context, _ string, _ event.Schema, data []byte) ([]byte, error) {
	return append([]byte("F"), data...), nil
}

func (framed) Open(_ context.Context, _ string, wire []byte) (event.Schema, []byte, error) {
	if len(wire) == 0 || wire[0] != 'F' {
		return event.Schema{}, nil, errors.New("no F in front")
	}
	return event.Schema{}, wire[1:], nil
}

func TestWireFormatAndSchema(t *testing.T) {
	t.Parallel()
	pool := database(t)
	c := inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
		cfg := config(from)
		cfg.Wire = framed{}
		in, err := inbox.New(pool, cfg)
		inbox.On(in, placed, reserve)
		return in, err
	}}
	d := placed.New(order{ID: "a", SKU: "tea", Qty: 1})
	require.Contains(t, failure(t, func(t testing.TB) { c.Deliver(t, pool, d) }), "no F in front")
	c.Wire = framed{}
	d.Key = "another" // behind a dead letter otherwise
	require.EqualValues(t, 1, c.Deliver(t, pool, d).Handled)
	c.Schema = "elsewhere"
	require.Contains(t, failure(t, func(t testing.TB) { c.Deliver(t, pool, d) }), "set Consumer.Schema")
}

func TestDeliverSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	pool := database(t)
	d := placed.New(order{ID: "a", SKU: "tea", Qty: 1})
	for name, c := range map[string]struct {
		consumer inboxtest.Consumer
		draft    event.Draft
		want     string
	}{
		"no consumer": {inboxtest.Consumer{}, d, "inboxtest.Consumer.New is nil"},
		"negative":    {inboxtest.Consumer{New: consumer(nil).New, Timeout: -1}, d, `Timeout "-1ns" is negative`},
		"no handler": {inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
			return inbox.New(pool, config(from))
		}}, d, "no handler: register one"},
		"bad config": {inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
			return inbox.New(pool, inbox.Config{From: from})
		}}, d, `Consumer is empty`},
		"none": {inboxtest.Consumer{New: func(*pgxpool.Pool, brokers.Subscriber) (*inbox.Inbox, error) {
			return nil, nil
		}}, d, "Consumer.New returned nil"},
		"not made by a type": {consumer(func(*pgxpool.Pool) handle { return reserve }), event.Draft{}, "event 1 of 1: Type.Name is empty"},
		"hangs": {func() inboxtest.Consumer {
			c := consumer(func(*pgxpool.Pool) handle {
				return func(ctx context.Context, _ pgx.Tx, _ inbox.Event[order]) error { <-ctx.Done(); return ctx.Err() }
			})
			c.Timeout = 100 * time.Millisecond
			return c
		}(), d, "1 deliveries are still not settled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, failure(t, func(t testing.TB) { c.consumer.Deliver(t, pool, c.draft) }), c.want)
		})
	}
}

func TestHandleInATransactionOfTheTests(t *testing.T) {
	t.Parallel()
	pool := database(t)
	ob := newOutbox(t, pool)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	d := placed.New(order{ID: "o-1"})
	d.CorrelationID, d.Headers = "request", map[string]string{"tenant": "eu"}
	check := func(e inbox.Event[order]) {
		require.Equal(t, order{ID: "o-1"}, e.Data)
		require.Equal(t, "o-1", e.Key)
		require.Equal(t, "eu", e.Headers["tenant"])
		require.Equal(t, placed.Name, e.Type)
	}

	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // the test is over
	var id string
	err = inboxtest.Handle(t, tx, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		check(e)
		id = e.ID
		return ob.Write(ctx, tx, reservedV1.New(reserved{e.Data.ID}))
	}, d)
	require.NoError(t, err)
	got := outboxtest.RequireWritten(t, tx, reservedV1, reserved{"o-1"})
	require.Equal(t, id, got[0].CausationID)
	require.Equal(t, "request", got[0].CorrelationID)

	sqlTx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer sqlTx.Rollback() //nolint:errcheck // the test is over
	err = inboxtest.Handle(t, sqlTx, func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
		check(e)
		return ob.WriteSQL(ctx, tx, reservedV1.New(reserved{e.Data.ID}), reservedV1.New(reserved{"o-2"}))
	}, d)
	require.NoError(t, err)
	outboxtest.RequireWritten(t, sqlTx, reservedV1, reserved{"o-1"}, reserved{"o-2"})

	err = inboxtest.Handle(t, tx, func(_ context.Context, _ pgx.Tx, e inbox.Event[order]) error {
		require.True(t, e.Tombstone)
		return errors.New("refused")
	}, placed.Tombstone("o-1"))
	require.EqualError(t, err, "refused")
}
