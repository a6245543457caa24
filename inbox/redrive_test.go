package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

var why = inbox.DeadAction{By: "tester", Reason: "a test"}

// redriving starts an inbox that looks for redriven dead letters often.
func (w *world) redriving(cfg inbox.Config, handle func(context.Context, pgx.Tx, inbox.Event[order]) error) *running {
	w.t.Helper()
	in, err := inbox.New(w.pool, cfg)
	require.NoError(w.t, err)
	inbox.LookEvery(in, 5*time.Millisecond)
	inbox.On(in, placed, handle)
	return run(w.t, in)
}

// bury makes dead letters of messages; bad ones fail.
func (w *world) bury(cfg inbox.Config, msgs ...brokers.Message) {
	w.t.Helper()
	cfg.Breaker = new(false) // all of them die
	in := w.start(cfg, failing)
	w.publish(msgs...)
	w.settled(cfg.Consumer)
	require.NoError(w.t, in.end())
}

// states are those of all dead letters, by consumer and key, in the order of storing: "n state".
func (w *world) states() string {
	w.t.Helper()
	var s string
	require.NoError(w.t, w.pool.QueryRow(context.Background(),
		`SELECT coalesce(string_agg((convert_from(payload, 'UTF8')::jsonb->>'n') || ' ' || state, ', ' ORDER BY consumer, key, n), '') FROM inbox.dead`).Scan(&s))
	return s
}

// applied are the effects in their order.
func (w *world) applied() string {
	w.t.Helper()
	var s string
	require.NoError(w.t, w.pool.QueryRow(context.Background(),
		`SELECT coalesce(string_agg(n::text, ' ' ORDER BY at), '') FROM effect`).Scan(&s))
	return s
}

func (w *world) redrive(f inbox.DeadFilter) int64 {
	w.t.Helper()
	n, err := inbox.Redrive(context.Background(), w.pool, "", f, why)
	require.NoError(w.t, err)
	return n
}

// The head of a key is handled from its row, then what is blocked behind it, then
// what comes, in order and once; other consumers know nothing of it.
func TestRedrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var msgs []brokers.Message
	for n := range 6 {
		msgs = append(msgs, message("a", n))
	}
	msgs[1].CorrelationID, msgs[1].Time = "cor", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w.bury(w.config("inventory"), msgs...)
	w.bury(w.config("billing"))
	require.Equal(t, "0 dead, 1 blocked, 2 blocked, 3 blocked, 4 blocked, 5 blocked, 0 dead, 1 blocked, 2 blocked, 3 blocked, 4 blocked, 5 blocked", w.states())

	var got atomic.Pointer[inbox.Event[order]]
	var cause atomic.Pointer[event.Envelope]
	in := w.redriving(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N == 1 {
			c, _ := event.Cause(ctx)
			got.Store(&e)
			cause.Store(&c)
		}
		return insert("inventory")(ctx, tx, e)
	})
	require.EqualValues(t, 1, w.redrive(inbox.DeadFilter{Consumer: "inventory", Key: "a"}))
	eventually(t, "all", func() bool { return w.effects() == 6 })
	w.publish(message("a", 6))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, "0 1 2 3 4 5 6", w.applied())
	require.Equal(t, 7, w.count(`SELECT count(*) FROM effect WHERE consumer = 'inventory'`))
	require.Equal(t, 6, w.count(`SELECT count(*) FROM inbox.dead WHERE consumer = 1 AND state = 'redriven' AND action = 1`))
	require.Equal(t, 6, w.count(`SELECT count(*) FROM inbox.dead WHERE consumer = 2 AND state IN ('dead', 'blocked')`))
	require.Equal(t, inbox.Stats{Handled: 1, Redriven: 6}, in.Stats())

	e := got.Load()
	require.Equal(t, msgs[1].ID, e.ID)
	require.Equal(t, "cor", e.CorrelationID)
	require.True(t, msgs[1].Time.Equal(e.Time))
	require.Equal(t, map[string]string{"tenant": "a"}, e.Headers)
	require.Equal(t, "memory", e.Origin.Broker)
	require.Equal(t, msgs[1].ID, cause.Load().ID, "what it writes names its cause")

	require.Equal(t, inbox.Stats{Duplicates: 6}, deliver(w, msgs...), "a duplicate of a redriven event")
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead_action WHERE action = 'redrive' AND actor = 'tester'
		AND reason = 'a test' AND events = 1 AND filter = '{"consumer": "inventory", "key": "a"}' AND role = current_user`))
	o, err := inbox.RedriveOutcome(t.Context(), w.pool, "", 1)
	require.NoError(t, err)
	require.Equal(t, inbox.Outcome{Redriven: 6}, o)
}

// One that fails again is dead again after as many attempts as a new message has,
// counted on; what is behind it stays there.
func TestRedriveThatFailsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 0), message("a", 1), message("b", 2), message("c", 3))
	for round := 1; round <= 2; round++ {
		in := w.redriving(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
			if err := insert("inventory")(ctx, tx, e); err != nil {
				return err
			}
			if e.Key == "b" {
				return inbox.Permanent(fmt.Errorf("round %d: never", round))
			}
			return fmt.Errorf("round %d: %w", round, errBroken)
		})
		require.EqualValues(t, 3, w.redrive(inbox.DeadFilter{}))
		eventually(t, "dead again", func() bool {
			return w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead' AND error LIKE $1`, fmt.Sprintf("round %d%%", round)) == 3
		})
		require.NoError(t, in.end())
		require.Zero(t, w.effects())
		require.Equal(t, "0 dead, 1 blocked, 2 dead, 3 dead", w.states())
		var rows string
		require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT string_agg(concat_ws(' ', reason, attempts), ', ' ORDER BY key, n) FROM inbox.dead`).Scan(&rows))
		require.Equal(t, fmt.Sprintf("attempts %d, blocked 0, permanent %d, attempts %d", 3+3*round, 3+round, 3+3*round), rows)
		require.Equal(t, inbox.Stats{Failures: 7}, in.Stats())
		o, err := inbox.RedriveOutcome(t.Context(), w.pool, "", int64(round))
		require.NoError(t, err)
		require.Equal(t, inbox.Outcome{Dead: 3}, o)
	}
}

// Faults of the handler that only show at the commit, and bytes that nobody reads.
func TestRedriveFaults(t *testing.T) {
	t.Parallel()
	swallowed := func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
		_, _ = tx.Exec(ctx, `SELECT 1/0`)
		return nil
	}
	for name, c := range map[string]struct {
		handle      func(context.Context, pgx.Tx, inbox.Event[order]) error
		payload     string
		reason, err string
		attempts    int
	}{
		"swallowed SQL error": {swallowed, "", "attempts", "returned nil though a statement of its transaction had failed", 2},
		"panic":               {func(context.Context, pgx.Tx, inbox.Event[order]) error { panic("at the disco") }, "", "attempts", "panic: at the disco", 2},
		"timeout": {func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
			_, err := tx.Exec(ctx, `SELECT pg_sleep(60)`)
			return err
		}, "", "attempts", "handler timed out after 200ms", 2},
		"commits itself": {func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
			_ = insert("x")(ctx, tx, e)
			_ = tx.Commit(ctx)
			return nil
		}, "", "attempts", "the handler ended its transaction", 2},
		"refused at commit": {func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
			_, err := tx.Exec(ctx, `CREATE TEMP TABLE d (i int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP; INSERT INTO d VALUES (1), (1)`)
			return err
		}, "", "attempts", "duplicate key", 2},
		"kills its server": {func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		}, "", "attempts", "terminating connection", 2},
		"poison": {insert("inventory"), "\x00", "undecodable", "decode: invalid character", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cfg := w.config("inventory")
			cfg.Attempts = 1
			if name == "timeout" {
				cfg.HandlerTimeout = 200 * time.Millisecond
			}
			w.bury(cfg, message("a", 1))
			if c.payload != "" {
				w.exec(`UPDATE inbox.dead SET payload = $1`, []byte(c.payload))
			}
			cfg.From = w.broker.Subscriber("inventory", "orders") // the other one is closed
			in := w.redriving(cfg, c.handle)
			w.redrive(inbox.DeadFilter{})
			eventually(t, "dead again", func() bool { return w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead'`) == 1 })
			require.NoError(t, in.end())
			rows := w.dead()
			require.Equal(t, c.reason, rows[0].Reason)
			require.Contains(t, rows[0].Error, c.err)
			require.Equal(t, c.attempts, rows[0].Attempts)
			require.Zero(t, w.effects())
		})
	}
}

func TestRedriveOverSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 0), message("a", 1))
	in, err := inbox.New(w.pool, w.config("inventory"))
	require.NoError(t, err)
	inbox.LookEvery(in, 5*time.Millisecond)
	var kills atomic.Int32
	inbox.OnSQL(in, placed, func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO effect (id, n) VALUES ($1, $2)`, e.ID, e.Data.N); err != nil {
			return err
		}
		if kills.Add(1) == 1 {
			_, err := tx.ExecContext(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		}
		return nil
	})
	r := run(t, in)
	w.redrive(inbox.DeadFilter{})
	eventually(t, "both", func() bool { return w.effects() == 2 })
	require.NoError(t, r.end())
	require.Equal(t, "0 1", w.applied())
	require.Equal(t, inbox.Stats{Redriven: 2}, in.Stats(), "a lost connection is no failed attempt")
}

// Discarding the head lets what is blocked behind it go on; discarding all of a key
// lets none of it have its turn meanwhile.
func TestDiscard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var msgs []brokers.Message
	for n := range 250 { // several batches
		msgs = append(msgs, message("all", 1000+n))
	}
	w.bury(w.config("inventory"), append(msgs, message("a", 0), message("a", 1), message("a", 2), message("a", 3))...)
	in := w.redriving(w.config("inventory"), insert("inventory"))
	var before time.Time
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&before))
	n, err := inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{Key: "all"}, why)
	require.NoError(t, err)
	require.EqualValues(t, 250, n)
	require.Zero(t, w.count(`SELECT count(*) FROM inbox.dead WHERE next_attempt_at >= $1`, before), "none had its turn")
	list, err := inbox.DeadLetters(t.Context(), w.pool, "", inbox.DeadFilter{Key: "a"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 4)
	n, err = inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{N: list[2].N}, why) // from the middle
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Zero(t, w.effects())
	n, err = inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{State: "dead"}, why)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	eventually(t, "the others", func() bool { return w.effects() == 2 })
	w.publish(message("a", 4), message("all", 5))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, 4, w.effects())
	require.Equal(t, "1 3 4", w.of("a"))
	require.Equal(t, inbox.Stats{Handled: 2, Redriven: 2}, in.Stats())
	d, err := inbox.ShowDeadLetter(t.Context(), w.pool, "", list[0].N)
	require.NoError(t, err)
	require.Equal(t, []string{"discarded", "discard", "tester", "a test"}, []string{d.State, d.Action, d.ActionBy, d.ActionReason})
}

// of are the effects of one key, in order.
func (w *world) of(key string) string {
	w.t.Helper()
	var s string
	require.NoError(w.t, w.pool.QueryRow(context.Background(),
		`SELECT coalesce(string_agg(n::text, ' ' ORDER BY at), '') FROM effect WHERE key = $1`, key).Scan(&s))
	return s
}

// What is being handled is not discarded, and whoever wants to does not wait.
func TestDiscardOfWhatIsBeingHandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 0), message("b", 1))
	entered, proceed := make(chan struct{}), make(chan struct{})
	in := w.redriving(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		close(entered)
		<-proceed
		return insert("inventory")(ctx, tx, e)
	})
	w.redrive(inbox.DeadFilter{Key: "a"})
	<-entered
	n, err := inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{}, why)
	close(proceed)
	require.ErrorIs(t, err, inbox.ErrBeingHandled)
	require.ErrorContains(t, err, "1 more match")
	require.EqualValues(t, 1, n)
	eventually(t, "the other", func() bool { return w.effects() == 1 })
	require.NoError(t, in.end())
	require.Equal(t, "0 redriven, 1 discarded", w.states())
}
