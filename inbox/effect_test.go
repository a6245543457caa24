package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

func TestHandlesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("a", 1)
	m.CorrelationID, m.CausationID = "cor", "cau"
	var got inbox.Event[order]
	var cause event.Envelope
	var log lines
	cfg := w.config("inventory")
	cfg.Logger = log.logger()
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		got = e
		cause, _ = event.Cause(ctx)
		return insert("inventory")(ctx, tx, e)
	})
	w.publish(m, m, m)
	w.settled("inventory")
	require.NoError(t, in.end())

	require.True(t, log.has("inbox: consuming"))
	require.True(t, log.has("inbox: stopped"))
	require.Equal(t, 1, w.effects())
	require.Equal(t, 1, w.claims())
	require.Equal(t, inbox.Stats{Handled: 1, Duplicates: 2}, in.Stats())
	require.Equal(t, order{ID: "a", N: 1}, got.Data)
	require.False(t, got.Tombstone)
	require.Equal(t, "memory", got.Origin.Broker)
	got.Time, cause.Time = m.Time, m.Time // without monotonic clock, else equal
	want := event.Envelope{
		ID: m.ID, Source: source, Type: placed.Name, Topic: "orders", Key: "a", Time: m.Time, ContentType: "application/json",
		CorrelationID: "cor", CausationID: "cau", Headers: map[string]string{"tenant": "a"},
	}
	require.Equal(t, want, got.Envelope)
	require.Equal(t, want, cause)
}

func TestFailedHandlerLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, start := range handlerForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cfg := w.config("inventory")
			cfg.RetryBase = time.Hour
			in := start(w, cfg, func(exec execFunc, e inbox.Event[order]) error {
				require.NoError(t, exec(`INSERT INTO effect (id) VALUES ($1)`, e.ID))
				return errBroken
			})
			w.publish(message("a", 1))
			eventually(t, "an attempt", func() bool { return in.Stats().Failures == 1 })
			require.Zero(t, w.effects())
			require.Zero(t, w.claims())
			require.NoError(t, in.end())
			require.Equal(t, 1, w.broker.Unacked("inventory", "orders"))
			require.Positive(t, in.Stats().Released, "what waits for a retry goes back")
		})
	}
}

// execFunc runs a statement in the handler's transaction, whatever its form.
type execFunc func(sql string, args ...any) error

// handlerForms starts an inbox with a handler over pgx.Tx or over *sql.Tx.
func handlerForms() map[string]func(*world, inbox.Config, func(execFunc, inbox.Event[order]) error) *running {
	return map[string]func(*world, inbox.Config, func(execFunc, inbox.Event[order]) error) *running{
		"pgx.Tx": func(w *world, cfg inbox.Config, f func(execFunc, inbox.Event[order]) error) *running {
			return w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				return f(func(query string, args ...any) error { _, err := tx.Exec(ctx, query, args...); return err }, e)
			})
		},
		"sql.Tx": func(w *world, cfg inbox.Config, f func(execFunc, inbox.Event[order]) error) *running {
			in, err := inbox.New(w.pool, cfg)
			require.NoError(w.t, err)
			inbox.OnSQL(in, placed, func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
				return f(func(query string, args ...any) error { _, err := tx.ExecContext(ctx, query, args...); return err }, e)
			})
			return run(w.t, in)
		},
	}
}

func TestBothFormsHandleOnce(t *testing.T) {
	t.Parallel()
	for name, start := range handlerForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			foreign := message("b", 2)
			foreign.ID = "order-7"
			timed := message("a", 1)
			w.publish(timed, foreign, timed, foreign)
			attempts := 0
			in := start(w, w.config("inventory"), func(exec execFunc, e inbox.Event[order]) error {
				if e.Key == "a" {
					if attempts++; attempts == 1 {
						return errBroken
					}
				}
				return exec(`INSERT INTO effect (id, key, n) VALUES ($1, $2, $3)`, e.ID, e.Key, e.Data.N)
			})
			w.settled("inventory")
			require.NoError(t, in.end())
			require.Equal(t, 2, w.effects())
			require.Equal(t, inbox.Stats{Handled: 2, Duplicates: 2, Failures: 1}, in.Stats())
		})
	}
}

func TestConcurrentDuplicatesTakeEffectOnce(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]string{"timed id": message("a", 1).ID, "foreign id": "order-7"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := message("a", 1)
			m.ID = id
			w.publish(m)
			entered, proceed := make(chan string, 2), make(chan struct{})
			handler := func(name string) func(context.Context, pgx.Tx, inbox.Event[order]) error {
				return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
					entered <- name
					<-proceed
					return insert("inventory")(ctx, tx, e)
				}
			}
			// Two groups of the broker, so that both get the message: as after a
			// rebalance that one of them has not noticed.
			cfg := w.config("inventory")
			first := w.start(cfg, handler("first"))
			require.Equal(t, "first", <-entered)
			cfg.From = w.broker.Subscriber("other group", "orders")
			second := w.start(cfg, handler("second"))
			eventually(t, "the second to wait for the first's claim", func() bool {
				return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
			})
			require.Empty(t, entered, "the second must not handle it meanwhile")
			close(proceed)
			w.settled("inventory")
			w.settled("other group")
			require.NoError(t, first.end())
			require.NoError(t, second.end())
			require.Equal(t, 1, w.effects())
			require.EqualValues(t, 1, first.Stats().Handled)
			require.EqualValues(t, 1, second.Stats().Duplicates)
		})
	}
}

func TestReplayIsSwallowedAndAppliedByANewConsumer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []brokers.Message
	for n := range 20 {
		all = append(all, message("a", n))
	}
	w.publish(all...)
	first := w.start(w.config("inventory"), insert("inventory"))
	w.settled("inventory")
	w.publish(all...) // the replay
	w.settled("inventory")
	require.NoError(t, first.end())
	require.Equal(t, inbox.Stats{Handled: 20, Duplicates: 20}, first.Stats())

	other := w.start(w.config("analytics"), insert("analytics"))
	w.settled("analytics")
	require.NoError(t, other.end())
	require.Equal(t, 20, w.count(`SELECT count(*) FROM effect WHERE consumer = 'inventory'`))
	require.Equal(t, 20, w.count(`SELECT count(DISTINCT id) FROM effect WHERE consumer = 'analytics'`))
	require.Equal(t, inbox.Stats{Handled: 20, Duplicates: 20}, other.Stats())
}

func TestTombstone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("a", 1)
	m.Payload = nil
	got := make(chan inbox.Event[order], 1)
	w.start(w.config("inventory"), func(_ context.Context, _ pgx.Tx, e inbox.Event[order]) error { got <- e; return nil })
	w.publish(m)
	e := <-got
	require.True(t, e.Tombstone)
	require.Zero(t, e.Data)
}

func TestOrderPerKeyUnderRetries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const keys, perKey = 24, 25
	for n := range perKey {
		for k := range keys {
			w.publish(message(fmt.Sprint("k", k), n))
		}
	}
	cfg := w.config("inventory")
	cfg.Concurrency, cfg.Attempts = 16, 50
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if err := insert("inventory")(ctx, tx, e); err != nil {
			return err
		}
		if rand.IntN(4) == 0 {
			return errBroken
		}
		return nil
	})
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Positive(t, in.Stats().Failures)
	require.Equal(t, keys*perKey, w.effects())
	require.Zero(t, w.count(`SELECT count(*) FROM (SELECT n, lag(n, 1, -1) OVER (PARTITION BY key ORDER BY at) before FROM effect) o WHERE n <> before + 1`),
		"effects out of order")
}

func TestARetryHoldsOnlyItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Concurrency, cfg.RetryBase = 1, time.Hour
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Key == "bad" {
			return errBroken
		}
		return insert("inventory")(ctx, tx, e)
	})
	w.publish(message("bad", 1), message("bad", 2))
	for n := range 50 {
		w.publish(message(fmt.Sprint("good", n), n))
	}
	eventually(t, "all other keys", func() bool { return w.effects() == 50 })
	eventually(t, "them to be acknowledged", func() bool { return w.broker.Unacked("inventory", "orders") == 2 })
	require.NoError(t, in.end())
	require.EqualValues(t, 1, in.Stats().Failures)
}
