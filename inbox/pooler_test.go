package inbox_test

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/services/pgbouncer"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
)

// pooled connects to the database at direct through a PgBouncer in transaction mode,
// as docs/postgres.md says.
func pooled(t *testing.T, direct string) *pgxpool.Pool {
	t.Helper()
	if err := pgbouncer.Available(); err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	u, err := url.Parse(direct)
	require.NoError(t, err)
	bouncer, err := pgbouncer.Start(t.Context(), u.Host)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bouncer.Close(context.Background())) })
	return connect(t, bouncer.URL(strings.TrimPrefix(u.Path, "/"))+"&default_query_exec_mode=exec")
}

// Through PgBouncer: messages one by one and in batches, duplicates, a dead letter and
// its redrive, events that handlers write, and writers of both drivers.
func TestThroughAPooler(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	pool := pooled(t, direct)
	w := worldAt(t, direct)
	conn, err := w.pool.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, migrate.Outbox("").Up(t.Context(), conn.Conn()))
	conn.Release()
	ob, err := outbox.New(t.Context(), pool, outbox.Config{Source: source, Types: []event.Any{mailAsked}})
	require.NoError(t, err)

	const n = 300
	msgs := orders(n)
	w.publish(msgs...)
	w.publish(msgs[:50]...)
	w.throughThePooler(pool, ob)
	require.Equal(t, n, w.count(`SELECT count(*) FROM effect WHERE consumer = 'inventory'`))
	require.Equal(t, n, w.count(`SELECT count(DISTINCT id) FROM effect WHERE consumer = 'inventory'`))
	require.Equal(t, n, w.count(`SELECT count(*) FROM outbox.event`), "one for each effect")

	in, err := inbox.New(pool, w.config("billing"))
	require.NoError(t, err)
	inbox.OnBatch(in, placed, func(ctx context.Context, tx pgx.Tx, events []inbox.Event[order]) error {
		for _, e := range events {
			if err := insert("billing")(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	billing := run(t, in)
	w.settled("billing")
	require.NoError(t, billing.end())
	require.Equal(t, n, w.count(`SELECT count(*) FROM effect WHERE consumer = 'billing'`))
	require.Equal(t, n, w.count(`SELECT count(DISTINCT id) FROM effect WHERE consumer = 'billing'`))

	writeBothWays(t, pool, ob.WithKeyLock())
	require.Equal(t, n+2, w.count(`SELECT count(*) FROM outbox.event`))
}

// throughThePooler handles all orders one by one. One of them dies, and is redriven
// when its cause is mended.
func (w *world) throughThePooler(pool *pgxpool.Pool, ob *outbox.Outbox) {
	w.t.Helper()
	var mended atomic.Bool
	cfg := w.config("inventory")
	cfg.Concurrency = 6
	in, err := inbox.New(pool, cfg)
	require.NoError(w.t, err)
	inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N == 13 && !mended.Load() {
			return inbox.Permanent(errBroken)
		}
		if err := ob.Write(ctx, tx, mailAsked.New(mail{To: e.Data.ID})); err != nil {
			return err
		}
		return insert("inventory")(ctx, tx, e)
	})
	consumer := run(w.t, in)
	w.settled("inventory")
	require.Equal(w.t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead'`))
	mended.Store(true)
	redriven, err := inbox.Redrive(w.t.Context(), pool, "", inbox.DeadFilter{Class: "permanent"}, inbox.DeadAction{By: "ann", Reason: "mended"})
	require.NoError(w.t, err)
	require.EqualValues(w.t, 1, redriven)
	eventually(w.t, "the redriven one to take effect", func() bool {
		return w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'redriven'`) == 1
	})
	require.NoError(w.t, consumer.end())
}

// writeBothWays writes an event through pgx and one through database/sql.
func writeBothWays(t *testing.T, pool *pgxpool.Pool, ob *outbox.Outbox) {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		return ob.Write(ctx, tx, mailAsked.New(mail{To: "pgx"}))
	}))
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{})
	require.NoError(t, err)
	require.NoError(t, ob.WriteSQL(ctx, tx, mailAsked.New(mail{To: "database/sql"})))
	require.NoError(t, tx.Commit())
}
