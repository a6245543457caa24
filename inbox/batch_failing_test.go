package inbox_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// While a batch handler's dependency is down nothing dies, and when it is back
// there are batches again.
func TestBatchHandlerWhoseDependencyIsDown(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		b := newBatches(w)
		var down atomic.Bool
		down.Store(true)
		b.refuse = func(context.Context, execFunc, inbox.Event[order]) error {
			if down.Load() {
				return errBroken
			}
			return nil
		}
		cfg := w.config("inventory")
		cfg.Attempts = 5 // time for others to fail as well: before that, it may be the message's own fault
		in := start(b, cfg)
		w.publish(orders(100)...)
		eventually(t, "the circuit to open", func() bool { return len(in.Stats().Circuits) == 1 })
		const late = 1000 // published while it is open; other batches may have begun before
		for n := range 100 {
			w.publish(message("", late+n))
		}
		calls := len(b.calls())
		eventually(t, "probes", func() bool { return len(b.calls()) > calls+15 })
		for _, call := range b.calls()[calls:] {
			require.False(t, len(call) > 1 && slices.Max(call) >= late, "no batches while it is open: %v", call)
		}
		require.Empty(t, w.dead())
		down.Store(false)
		w.settled("inventory")
		require.EqualValues(t, 200, in.Stats().Handled)
		require.Empty(t, w.dead())

		calls = len(b.calls())
		eventually(t, "the circuit to close", func() bool { return len(in.Stats().Circuits) == 0 })
		w.publish(orders(100)...)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, 300, w.effects())
		require.Less(t, len(b.calls())-calls, 90, "batches again")
	})
}

// A batch handler that ignores its context holds its keys and no others, and
// what it does afterwards has no effect.
func TestBatchHandlerThatIgnoresItsContext(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		b := newBatches(w)
		var stuck atomic.Bool
		letGo := make(chan struct{})
		b.refuse = func(_ context.Context, exec execFunc, e inbox.Event[order]) error {
			if e.Data.N == 3 && stuck.CompareAndSwap(false, true) {
				<-letGo
				_ = exec(`INSERT INTO effect (n) VALUES (-1)`)
			}
			return nil
		}
		cfg := w.config("inventory")
		cfg.HandlerTimeout = 100 * time.Millisecond
		in := b.together(cfg, start, orders(5)...)
		eventually(t, "it to be stuck", stuck.Load)
		w.publish(message("other", 50), message("k1", 51))
		eventually(t, "another key", func() bool { return w.count(`SELECT count(*) FROM effect WHERE n = 50`) == 1 })
		pgtest.Never(t, func() bool { return w.effects() > 1 }, 300*time.Millisecond, 20*time.Millisecond, "its keys wait")
		close(letGo)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, 7, w.effects())
		require.Zero(t, w.count(`SELECT count(*) FROM effect WHERE n = -1`))
		require.Zero(t, w.count(`SELECT count(*) FROM (SELECT n, lag(n) OVER (PARTITION BY key ORDER BY at) before FROM effect) o WHERE n < before`))
	})
}

// What cannot be decoded ends its key's part of a batch, which goes on without.
func TestUndecodableEventInABatch(t *testing.T) {
	inBatches(t, func(t *testing.T, w *world, start func(*batches, inbox.Config, ...inbox.Middleware) *running) {
		garbled := message("k", 2)
		garbled.Payload = []byte("\x00\xff")
		b := newBatches(w)
		in := b.together(w.config("inventory"), start, message("k", 1), garbled, message("k", 3), message("other", 4))
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, inbox.Stats{Handled: 3, DeadLettered: 1, Blocked: 1}, in.Stats())
		require.Len(t, b.calls(), 1)
		require.ElementsMatch(t, []int{1, 4}, b.calls()[0])
		require.Equal(t, []string{"undecodable", "blocked"}, w.texts(`SELECT reason FROM inbox.dead ORDER BY n`))
	})
}
