package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// batches is a handler of OnBatch that writes one effect an event and remembers
// which events it was given. The first of key "gate" waits, so that what is
// published meanwhile waits too: behind it is one batch, with one worker.
type batches struct {
	w       *world
	refuse  func(ctx context.Context, exec execFunc, e inbox.Event[order]) error // nil: none
	entered chan struct{}
	proceed chan struct{}

	mu   sync.Mutex
	seen [][]int // Data.N of each call's events, without the gate's
}

func newBatches(w *world) *batches {
	return &batches{w: w, entered: make(chan struct{}, 1), proceed: make(chan struct{})}
}

func (b *batches) handle(ctx context.Context, exec execFunc, events []inbox.Event[order]) error {
	if events[0].Key == "gate" {
		b.entered <- struct{}{}
		<-b.proceed
		return nil
	}
	var call []int
	for _, e := range events {
		call = append(call, e.Data.N)
	}
	b.mu.Lock()
	b.seen = append(b.seen, call)
	b.mu.Unlock()
	for _, e := range events {
		if err := exec(`INSERT INTO effect (consumer, id, key, n) VALUES ('inventory', $1, $2, $3)`, e.ID, e.Key, e.Data.N); err != nil {
			return err
		}
		if b.refuse != nil {
			if err := b.refuse(ctx, exec, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batches) calls() [][]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

// on registers the handler in either form.
var batchForms = map[string]func(*batches, *inbox.Inbox, ...inbox.Middleware){
	"pgx.Tx": func(b *batches, in *inbox.Inbox, around ...inbox.Middleware) {
		inbox.OnBatch(in, placed, func(ctx context.Context, tx pgx.Tx, events []inbox.Event[order]) error {
			return b.handle(ctx, func(query string, args ...any) error { _, err := tx.Exec(ctx, query, args...); return err }, events)
		}, around...)
	},
	"sql.Tx": func(b *batches, in *inbox.Inbox, around ...inbox.Middleware) {
		inbox.OnBatchSQL(in, placed, func(ctx context.Context, tx *sql.Tx, events []inbox.Event[order]) error {
			return b.handle(ctx, func(query string, args ...any) error { _, err := tx.ExecContext(ctx, query, args...); return err }, events)
		}, around...)
	},
}

// inBatches runs f with a world and a batch handler of each form.
func inBatches(t *testing.T, f func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running)) {
	t.Parallel()
	for name, on := range batchForms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f(t, w, func(b *batches, cfg inbox.Config, around ...inbox.Middleware) *running {
				in, err := inbox.New(w.pool, cfg)
				require.NoError(t, err)
				on(b, in, around...)
				return run(t, in)
			})
		})
	}
}

// together has msgs wait behind the gate until all are in flight, in order of the
// arguments if they are of one unit, and then lets them go.
func (b *batches) together(cfg inbox.Config, start func(*batches, inbox.Config, ...inbox.Middleware) *running, msgs ...brokers.Message) *running {
	b.w.t.Helper()
	cfg.Concurrency = 1
	in := start(b, cfg)
	b.w.publish(message("gate", 0))
	<-b.entered
	b.w.publish(msgs...)
	eventually(b.w.t, "all to be in flight", func() bool { return b.w.broker.Ahead("inventory", "orders") == 1+len(msgs) })
	close(b.proceed)
	return in
}

func orders(n int) []brokers.Message {
	var msgs []brokers.Message
	for i := 1; i <= n; i++ {
		msgs = append(msgs, message(fmt.Sprint("k", i), i))
	}
	return msgs
}

func TestBatch(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		b := newBatches(w)
		cfg := w.config("inventory")
		cfg.BatchSize = 40
		msgs := orders(100)
		for i := range msgs[:60] {
			msgs[i].Key = "same" // more than a batch in one lane
		}
		in := b.together(cfg, start, msgs...)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 101}, in.Stats())
		require.Equal(t, 100, w.count(`SELECT count(DISTINCT id) FROM effect`))
		require.Equal(t, 101, w.claims())
		sizes := []int{}
		for _, call := range b.calls() {
			sizes = append(sizes, len(call))
		}
		require.Equal(t, []int{40, 40, 20}, sizes, "what waits, up to the size")
	})
}

// A failing event's neighbours commit, and it alone is retried.
func TestFailingEventInABatch(t *testing.T) {
	for name, fail := range map[string]func(context.Context, execFunc) error{
		"error":             func(context.Context, execFunc) error { return errBroken },
		"panic":             func(context.Context, execFunc) error { panic(errBroken) },
		"timeout":           func(ctx context.Context, _ execFunc) error { <-ctx.Done(); return ctx.Err() },
		"failed statement":  func(_ context.Context, exec execFunc) error { _ = exec(`SELECT 1/0`); return nil },
		"refused at commit": func(_ context.Context, exec execFunc) error { return exec(`INSERT INTO checked VALUES (1)`) },
		"kills its connection": func(_ context.Context, exec execFunc) error {
			return exec(`SELECT pg_terminate_backend(pg_backend_pid())`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
				w.exec(`CREATE TABLE checked (n int); CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
					CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)
				b := newBatches(w)
				b.refuse = func(ctx context.Context, exec execFunc, e inbox.Event[order]) error {
					if e.Data.N == 13 {
						return fail(ctx, exec)
					}
					return nil
				}
				cfg := w.config("inventory")
				if name == "timeout" {
					cfg.HandlerTimeout = 300 * time.Millisecond
				}
				msgs := orders(20)
				in := b.together(cfg, start, msgs...)
				w.settled("inventory")
				require.NoError(t, in.end())
				require.Equal(t, inbox.Stats{Handled: 20, Failures: 3, DeadLettered: 1}, in.Stats())
				require.Equal(t, 19, w.effects())
				require.Equal(t, 19, w.count(`SELECT count(DISTINCT id) FROM effect`))
				rows := w.dead()
				require.Len(t, rows, 1)
				require.Equal(t, msgs[12].ID, rows[0].ID)
				require.Equal(t, 3, rows[0].Attempts)
				require.Len(t, b.calls()[0], 20)
				tries := 0
				for _, call := range b.calls()[1:] {
					require.Len(t, call, 1)
					if call[0] == 13 {
						tries++
					}
				}
				require.GreaterOrEqual(t, tries, 3)
				require.Len(t, b.calls(), 1+19+tries, "the neighbours are handled once more, alone")
			})
		})
	}
}

func TestDuplicatesInABatch(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		before := message("k1", 1)
		require.Equal(t, inbox.Stats{Handled: 1}, deliver(w, before))
		twice, foreign := message("k2", 2), message("k3", 3)
		foreign.ID = "order-7"
		elsewhere := twice // under another key: a lane of its own
		elsewhere.Key = "k4"
		b := newBatches(w)
		in := b.together(w.config("inventory"), start, before, twice, twice, elsewhere, foreign, foreign, message("k5", 5))
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 4, Duplicates: 4}, in.Stats())
		require.Equal(t, 4, w.effects())
		require.Equal(t, 4, w.count(`SELECT count(DISTINCT id) FROM effect`))
		require.Len(t, b.calls(), 1)
		require.ElementsMatch(t, []int{2, 3, 5}, b.calls()[0])
	})
}

// If the batch rolls back, the second of two equal events must not have been
// acknowledged because the first had claimed it.
func TestDuplicateInAFailingBatch(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		b := newBatches(w)
		failed := false
		b.refuse = func(_ context.Context, _ execFunc, e inbox.Event[order]) error {
			if e.Data.N == 2 && !failed {
				failed = true
				return errBroken
			}
			return nil
		}
		m := message("k1", 1)
		in := b.together(w.config("inventory"), start, m, m, message("k2", 2))
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 3, Duplicates: 1}, in.Stats())
		require.Equal(t, 1, w.effects(m.ID))
	})
}

// Events that cannot be handled do not keep their neighbours from it, and hold
// back what is behind them.
func TestDeadLettersInABatch(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		w.established("inventory")
		old, garbled, unknown, nameless := message("k1", 1), message("k2", 2), message("k3", 3), message("k4", 4)
		old.ID = v7At(time.Now().Add(-20 * 24 * time.Hour))
		garbled.Payload = []byte("\x00\xff")
		unknown.Type = "shop.order.cancelled"
		nameless.ID = ""
		var msgs []brokers.Message
		for i, special := range []brokers.Message{old, garbled, unknown, nameless} {
			key := special.Key
			msgs = append(msgs, message(key, 10*i+10), special, message(key, 10*i+11))
		}
		msgs = append(msgs, orders(9)[8])
		b := newBatches(w)
		in := b.together(w.config("inventory"), start, msgs...)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 1 + 4 + 1 + 1, Ignored: 1, DeadLettered: 3, Blocked: 3}, in.Stats())
		require.Equal(t, 6, w.effects())
		require.Equal(t, []string{"10", "20", "30", "31", "40", "9"}, w.texts(`SELECT n::text FROM effect ORDER BY n::text`))
		require.Equal(t, []string{"k1 blocked", "k1 outside_window", "k2 blocked", "k2 undecodable", "k4 blocked", "k4 no_id"},
			w.texts(`SELECT key || ' ' || reason FROM inbox.dead ORDER BY 1`))
		require.Zero(t, w.count(`SELECT count(*) FROM inbox.dead b JOIN inbox.dead d USING (key) WHERE b.state = 'blocked' AND d.state = 'dead' AND b.n < d.n`))

		// The keys stay blocked: the rest of a batch is handled without them.
		b = newBatches(w)
		in = b.together(w.config("inventory"), start, message("k1", 100), message("k3", 101), message("k1", 102), message("k2", 103), message("k5", 104))
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 3, Blocked: 3}, in.Stats())
		require.Len(t, b.calls(), 1)
		require.ElementsMatch(t, []int{101, 104}, b.calls()[0])
		require.Equal(t, []string{"11", "100", "102"},
			w.texts(`SELECT convert_from(payload, 'UTF8')::json->>'n' FROM inbox.dead WHERE key = 'k1' AND state = 'blocked' ORDER BY n`))
	})
}

// texts answers a query for one column of text.
func (w *world) texts(query string) []string {
	w.t.Helper()
	rows, err := w.pool.Query(context.Background(), query)
	require.NoError(w.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(w.t, err)
	return all
}

func TestOrderPerKeyInBatches(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		const keys, perKey = 12, 40
		b := newBatches(w)
		b.refuse = func(context.Context, execFunc, inbox.Event[order]) error {
			if rand.IntN(100) == 0 {
				return errBroken
			}
			return nil
		}
		cfg := w.config("inventory")
		cfg.BatchSize, cfg.Attempts = 30, 50
		in := start(b, cfg)
		for n := range perKey {
			for k := range keys {
				w.publish(message(fmt.Sprint("k", k), n))
			}
		}
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, keys*perKey, w.effects())
		require.Zero(t, w.count(`SELECT count(*) FROM (SELECT n, lag(n, 1, -1) OVER (PARTITION BY key ORDER BY at) before FROM effect) o WHERE n <> before + 1`),
			"effects out of order")
		several := 0
		for _, call := range b.calls() {
			if len(call) > 1 {
				several++
			}
		}
		require.Positive(t, several)
	})
}

// When a delivery of a batch stops being ours, nothing of it is kept, and its
// events are handled when they come again.
func TestBatchTakenAway(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		b := newBatches(w)
		entered, first := make(chan struct{}), true
		b.refuse = func(ctx context.Context, _ execFunc, e inbox.Event[order]) error {
			if e.Data.N == 20 && first {
				first = false
				close(entered)
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		msgs := orders(20)
		for i := range msgs {
			msgs[i].Key = "k"
		}
		in := b.together(w.config("inventory"), start, msgs...)
		<-entered
		require.Zero(t, w.effects())
		w.broker.Restart()
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, 20, w.effects())
		require.Zero(t, w.count(`SELECT count(*) FROM (SELECT n, lag(n, 1, 0) OVER (ORDER BY at) before FROM effect) o WHERE n <> before + 1`))
		require.Zero(t, in.Stats().Failures, "not the handler's fault")
	})
}

func TestMiddlewareSeesABatchAsOneAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newBatches(w)
	var got []inbox.Attempt
	look := func(next inbox.Handler) inbox.Handler {
		return func(ctx context.Context, a *inbox.Attempt) error {
			if a.Key != "gate" {
				got = append(got, *a)
				if err := a.Exec(ctx, `INSERT INTO effect (n) VALUES (-1)`); err != nil {
					return err
				}
			}
			if cause, ok := event.Cause(ctx); ok && len(a.Batch) > 1 {
				return fmt.Errorf("a batch has no cause, but %v", cause)
			}
			return next(ctx, a)
		}
	}
	msgs := orders(3)
	for i := range msgs {
		msgs[i].Key = "k" // of one lane: in order
	}
	in := b.together(w.config("inventory"), func(b *batches, cfg inbox.Config, _ ...inbox.Middleware) *running {
		in, err := inbox.New(w.pool, cfg)
		require.NoError(t, err)
		batchForms["pgx.Tx"](b, in, look)
		return run(t, in)
	}, msgs...)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Len(t, got, 1)
	require.Equal(t, msgs[0].ID, got[0].ID)
	require.Equal(t, 1, got[0].Number)
	var ids []string
	for _, e := range got[0].Batch {
		ids = append(ids, e.ID)
	}
	require.Equal(t, []string{msgs[0].ID, msgs[1].ID, msgs[2].ID}, ids)
	require.Equal(t, 1, w.count(`SELECT count(*) FROM effect WHERE n = -1`))
}
