package inbox_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestConnectionKilledBetweenClaimAndCommit(t *testing.T) {
	t.Parallel()
	for name, start := range handlerForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var kills atomic.Int32
			cfg := w.config("inventory")
			cfg.Attempts = 1
			in := start(w, cfg, func(exec execFunc, e inbox.Event[order]) error {
				if err := exec(`INSERT INTO effect (id) VALUES ($1)`, e.ID); err != nil {
					return err
				}
				if kills.Add(1) <= 3 {
					return exec(`SELECT pg_terminate_backend(pg_backend_pid())`)
				}
				return nil
			})
			w.publish(message("a", 1))
			w.settled("inventory")
			require.NoError(t, in.end())
			require.Equal(t, 1, w.effects())
			require.Equal(t, inbox.Stats{Handled: 1}, in.Stats(), "a lost connection is no failed attempt")
		})
	}
}

func TestAStatementThatKillsItsServerDiesInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Attempts = 2
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
		_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
		return err
	})
	w.publish(message("a", 1))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Failures: 2, DeadLettered: 1}, in.Stats())
}

// forgetful loses acknowledgements: they look done, and the broker knows nothing.
type forgetful struct {
	brokers.Subscriber
	lose atomic.Bool
	lost atomic.Int32
}

func (f *forgetful) Subscribe(ctx context.Context, handle brokers.Handle) error {
	return f.Subscriber.Subscribe(ctx, func(ctx context.Context, d *brokers.Delivery) {
		d.Settler = &forgetfulSettler{d.Settler, f}
		handle(ctx, d)
	})
}

type forgetfulSettler struct {
	brokers.Settler
	f *forgetful
}

func (s *forgetfulSettler) Ack() error {
	if s.f.lose.Load() {
		s.f.lost.Add(1)
		return brokers.ErrStale
	}
	return s.Settler.Ack()
}

func TestCrashAfterCommitBeforeAck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	sub := &forgetful{Subscriber: cfg.From}
	sub.lose.Store(true)
	cfg.From = sub
	in := w.start(cfg, insert("inventory"))
	w.publish(message("a", 1), message("b", 2))
	eventually(t, "both to be lost", func() bool { return sub.lost.Load() == 2 })
	require.Equal(t, 2, w.effects())
	require.Equal(t, 2, w.broker.Unacked("inventory", "orders"))
	sub.lose.Store(false)
	w.broker.Restart()
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, 2, w.effects())
	require.Equal(t, inbox.Stats{Handled: 2, Duplicates: 2}, in.Stats())
}

// A process that stops dead in its transaction delays whoever gets its message
// by no more than the configured time.
func TestFrozenMemberDelaysOnlySoLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("a", 1)
	w.publish(m)
	entered, frost := make(chan struct{}), make(chan struct{})
	thaw := sync.OnceFunc(func() { close(frost) })
	cfg := w.config("inventory")
	cfg.HandlerTimeout = 200 * time.Millisecond
	frozen := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if err := insert("inventory")(ctx, tx, e); err != nil {
			return err
		}
		close(entered)
		<-frost
		return nil
	})
	t.Cleanup(thaw) // before the inbox is waited for: a failure must not hang
	<-entered
	began := time.Now()
	cfg.From = w.broker.Subscriber("other", "orders")
	other := w.start(cfg, insert("inventory"))
	w.settled("other")
	require.Less(t, time.Since(began), 10*time.Second)
	thaw()
	w.settled("inventory")
	require.NoError(t, frozen.end())
	require.NoError(t, other.end())
	require.Equal(t, 1, w.effects())
	require.EqualValues(t, 1, other.Stats().Handled)
	require.EqualValues(t, 0, frozen.Stats().Handled)
	require.EqualValues(t, 1, frozen.Stats().Duplicates)
}

func TestDatabaseAwayPausesConsumption(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t)
	w := worldAt(t, server.URL("postgres"))
	cfg := w.config("inventory")
	cfg.Attempts = 1
	slow := make(chan struct{})
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N == 0 {
			<-slow // the crash finds it between claim and commit
		}
		return insert("inventory")(ctx, tx, e)
	})
	const events = 60
	w.publish(message("k0", 0))
	eventually(t, "the first claim", func() bool {
		return w.count(`SELECT count(*) FROM pg_locks WHERE relation = 'inbox.seen'::regclass OR mode = 'RowExclusiveLock'`) > 0
	})
	require.NoError(t, server.Kill())
	close(slow)
	for n := 1; n < events; n++ {
		w.publish(message(fmt.Sprint("k", n%10), n))
	}
	// Long enough for all attempts to be used up, were they counted.
	pgtest.Never(t, func() bool { return w.broker.Unacked("inventory", "orders") < events }, 300*time.Millisecond, 10*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, server.Start(ctx))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, events, w.effects())
	require.Empty(t, w.dead())
	require.Zero(t, in.Stats().Failures)
	require.EqualValues(t, events, in.Stats().Handled)
}

func TestStartsBeforeItsDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t)
	w := worldAt(t, server.URL("postgres"))
	require.NoError(t, server.Stop(t.Context()))
	in := w.start(w.config("inventory"), insert("inventory"))
	w.publish(message("a", 1))
	done := in.done // its last look may come late
	pgtest.Never(t, func() bool { return len(done) > 0 }, 100*time.Millisecond, 10*time.Millisecond)
	require.NoError(t, server.Start(t.Context()))
	w.settled("inventory")
	require.NoError(t, in.end())
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const running = 4
	entered, proceed := make(chan struct{}, 100), make(chan struct{})
	cfg := w.config("inventory")
	cfg.Concurrency = running
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		entered <- struct{}{}
		<-proceed
		return insert("inventory")(ctx, tx, e)
	})
	for n := range 40 {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	for range running {
		<-entered
	}
	in.stop()
	pgtest.Never(t, func() bool { return len(in.done) > 0 }, 50*time.Millisecond, 5*time.Millisecond, "Run must wait for what is running")
	close(proceed)
	require.NoError(t, in.end())
	require.Empty(t, entered, "nothing new may begin")
	require.EqualValues(t, running, in.Stats().Handled)
	require.Equal(t, running, w.effects())
	require.Zero(t, w.broker.Ahead("inventory", "orders"), "everything is settled")
	require.Equal(t, 40-running, w.broker.Unacked("inventory", "orders"))

	next := w.start(w.config("inventory"), insert("inventory")) // not in: Never's last look may still read that
	w.settled("inventory")
	require.NoError(t, next.end())
	require.Equal(t, 40, w.effects())
	require.Zero(t, next.Stats().Duplicates)
}

// When a delivery stops being ours its handler is cancelled, nothing of it is
// kept, and the message is handled when it comes again.
func TestDeliveryTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var once sync.Once
	entered := make(chan struct{})
	in := w.start(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if err := insert("inventory")(ctx, tx, e); err != nil {
			return err
		}
		first := false
		once.Do(func() { first = true; close(entered) })
		if first {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	w.publish(message("a", 1), message("a", 2))
	<-entered
	w.broker.Restart()
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, 2, w.effects())
	require.Zero(t, w.count(`SELECT count(*) FROM (SELECT n, lag(n, 1, 0) OVER (ORDER BY at) before FROM effect) o WHERE n < before`))
	require.Zero(t, in.Stats().Failures, "not the handler's fault")
	require.GreaterOrEqual(t, in.Stats().Released, int64(1))
}

func TestInFlightIsBounded(t *testing.T) {
	t.Parallel()
	for name, bound := range map[string]func(*inbox.Config){
		"by number": func(c *inbox.Config) { c.MaxInFlight = 5 },
		"by bytes":  func(c *inbox.Config) { c.MaxInFlightBytes = 5 * 200 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			proceed := make(chan struct{})
			cfg := w.config("inventory")
			bound(&cfg)
			in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				<-proceed
				return insert("inventory")(ctx, tx, e)
			})
			for n := range 30 {
				m := message("", n)
				m.Headers["padding"] = string(make([]byte, 200-len("padding")-len("tenant")-1-len(m.Payload)))
				w.publish(m)
			}
			huge := message("", 30) // larger than the bound alone
			huge.Headers["padding"] = string(make([]byte, 2000))
			w.publish(huge)
			// The two units have one more each in handle, waiting for room.
			eventually(t, "the bound to be reached", func() bool { return w.broker.Ahead("inventory", "orders") == 5+2 })
			pgtest.Never(t, func() bool { return w.broker.Ahead("inventory", "orders") > 5+2 }, 50*time.Millisecond, 5*time.Millisecond)
			close(proceed)
			w.settled("inventory")
			require.NoError(t, in.end())
			require.Equal(t, 31, w.effects())
		})
	}
}
