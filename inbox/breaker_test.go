package inbox

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errDown = errors.New("the warehouse does not answer")

func testBreaker(concurrency int) *breaker {
	return newBreaker("t", breakerLimits{attempts: 3, concurrency: concurrency, base: 100 * time.Millisecond, max: time.Second}, slog.New(slog.DiscardHandler))
}

// now reports whether t may run now; if not it waits in the queue.
func (b *breaker) now(t *trial) bool { return b.begin(t) == nil }

func (b *breaker) fail(t *testing.T, tr *trial) bool {
	t.Helper()
	require.True(t, b.now(tr))
	return b.failed(tr, errDown, false)
}

func TestBreakerOpensBeforeAnyMessageDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBreaker(4)
		defer b.stop()
		var all []*trial
		for len(all) < inARow+4-1 {
			tr := &trial{}
			require.True(t, b.fail(t, tr))
			require.Equal(t, 1, tr.attempts)
			all = append(all, tr)
		}
		require.Nil(t, b.circuit())
		last := &trial{}
		require.False(t, b.fail(t, last), "what opens it does not count")
		require.Equal(t, "open", b.circuit().State)

		// All wait; one at a time is tried, each time another.
		for _, tr := range all {
			require.False(t, b.now(tr))
		}
		for i := range 5 {
			<-time.After(1100 * time.Millisecond) // of the bubble
			synctest.Wait()
			require.Equal(t, 1, b.running)
			require.True(t, all[i].held)
			require.False(t, all[i+1].held)
			require.Zero(t, all[i].attempts, "forgiven")
			require.False(t, b.failed(all[i], errDown, false))
			require.Zero(t, all[i].attempts)
		}
	})
}

func TestBreakerRecoversGradually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBreaker(8)
		defer b.stop()
		first := &trial{}
		require.True(t, b.now(first))
		require.False(t, b.failed(first, errDown, true), "opens at once")
		waiting := make([]*trial, 100)
		for i := range waiting {
			waiting[i] = &trial{}
			require.False(t, b.now(waiting[i]))
		}
		<-time.After(time.Second) // of the bubble
		synctest.Wait()
		var widths []int
		done := 0
		for b.circuit() != nil {
			widths = append(widths, b.running)
			require.True(t, waiting[done].held)
			b.succeeded(waiting[done])
			done++
		}
		require.Equal(t, []int{
			1,
			2, 2, 2, 2, // two at once until four have succeeded
			4, 4, 4, 4, 4, 4, 4, 4,
		}, widths)
		require.Empty(t, b.queue, "closed: all may run")
	})
}

func TestBreakerFallsBackWhenItFailsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBreaker(8)
		defer b.stop()
		require.True(t, b.now(&trial{}))
		first := &trial{}
		require.True(t, b.now(first))
		b.failed(first, errDown, true)
		<-time.After(time.Second) // of the bubble
		synctest.Wait()
		probe := &trial{}
		require.True(t, b.now(probe))
		b.succeeded(probe)
		require.Equal(t, "recovering", b.circuit().State)
		one, two := &trial{}, &trial{}
		require.True(t, b.fail(t, one), "it has been seen to work: counts")
		require.True(t, b.fail(t, one))
		require.False(t, b.fail(t, one), "but nothing dies before something has succeeded since")
		require.Equal(t, "open", b.circuit().State)
		require.False(t, b.now(two))
	})
}

// Failures at random, and many handlers that fail quickly between some that take
// their time: neither may look like an outage.
func TestBreakerStaysClosedWithPoison(t *testing.T) {
	for _, concurrency := range []int{1, 16, 64, 256} {
		for _, share := range []float64{0.1, 0.3} {
			stayClosed(t, concurrency, share)
		}
	}
}

func stayClosed(t *testing.T, concurrency int, share float64) {
	t.Helper()
	b := testBreaker(concurrency)
	var slow []*trial
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	for range 200_000 {
		tr := &trial{}
		require.True(t, b.now(tr))
		if random.Float64() < share {
			require.True(t, b.failed(tr, errDown, false))
			continue
		}
		if slow = append(slow, tr); len(slow) == concurrency {
			for _, s := range slow {
				b.succeeded(s)
			}
			slow = slow[:0]
		}
	}
	require.Nil(t, b.circuit())
	require.Zero(t, b.generation)
}

// Half of the messages need what is away.
func TestBreakerOpensWhenHalfOfTheMessagesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBreaker(16)
		defer b.stop()
		for n := 0; b.circuit() == nil; n++ {
			require.Less(t, n, 2*sample)
			tr := &trial{}
			require.True(t, b.now(tr))
			if n%5 < 2 {
				b.succeeded(tr)
				continue
			}
			b.failed(tr, errDown, false)
		}
	})
}

// With few keys there are few first failures: the breaker opens when the first
// message would die.
func TestBreakerWithFewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBreaker(16)
		defer b.stop()
		trials := []*trial{{}, {}, {}}
		for range 2 {
			for _, tr := range trials {
				require.True(t, b.fail(t, tr))
			}
		}
		require.False(t, b.fail(t, trials[0]))
		require.Equal(t, "open", b.circuit().State)
	})
	t.Run("but one message alone dies", func(t *testing.T) {
		b := testBreaker(16)
		tr, good := &trial{}, &trial{}
		require.True(t, b.now(good))
		b.succeeded(good)
		for range 3 {
			require.True(t, b.fail(t, tr))
		}
		require.Equal(t, 3, tr.attempts)
	})
	t.Run("and so do several if another succeeds", func(t *testing.T) {
		b := testBreaker(16)
		trials := []*trial{{}, {}, {}, {}}
		for range 2 {
			for _, tr := range trials {
				require.True(t, b.fail(t, tr))
			}
		}
		good := &trial{}
		require.True(t, b.now(good))
		b.succeeded(good)
		for _, tr := range trials {
			require.True(t, b.fail(t, tr))
			require.Equal(t, 3, tr.attempts)
		}
	})
}

// Only retries: one at a time is free, more only as successes pay for them.
func TestRetryBudgetOfABreaker(t *testing.T) {
	b := testBreaker(16)
	b.limits.attempts = 1000
	b.tokens = 0
	for range 100 { // not to be open
		good := &trial{}
		require.True(t, b.now(good))
		b.succeeded(good)
	}
	require.InDelta(t, 20, b.tokens, 0.001)
	retries := make([]*trial, 14)
	for i := range retries {
		retries[i] = &trial{}
		require.True(t, b.fail(t, retries[i]))
	}
	b.tokens = 2
	for i, tr := range retries {
		require.Equal(t, i < 3, b.now(tr), "one, and two that were paid for")
	}
	require.True(t, b.now(&trial{}), "a new message overtakes them")
	b.failed(retries[0], errDown, false)
	b.failed(retries[1], errDown, false)
	require.False(t, retries[3].held)
	b.failed(retries[2], errDown, false)
	require.True(t, retries[3].held, "the free one has gone on to the next")
	require.False(t, retries[4].held)
	b.succeeded(retries[3])
	require.True(t, retries[4].held)
	for range 5 {
		good := &trial{}
		require.True(t, b.now(good))
		b.succeeded(good)
	}
	require.True(t, retries[5].held, "five successes and more pay for one")
}

func TestBreakerForgetsWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBreaker(16)
		defer b.stop()
		first := &trial{}
		require.True(t, b.now(first))
		b.failed(first, errDown, true)
		a, c := &trial{}, &trial{}
		gone := b.begin(a)
		require.False(t, b.now(c))
		b.leave(gone)
		<-time.After(time.Second) // of the bubble
		synctest.Wait()
		require.False(t, a.held)
		require.True(t, c.held)
		b.spared(c) // its delivery was taken away
		d := &trial{}
		require.True(t, b.now(d), "the next one is the probe")
	})
}

func TestBreakerThatMayNotOpen(t *testing.T) {
	b := testBreaker(1)
	b.limits.never = true
	for range 100 {
		tr := &trial{}
		require.True(t, b.now(tr))
		require.True(t, b.failed(tr, errDown, false))
	}
	tr := &trial{}
	require.True(t, b.now(tr))
	require.False(t, b.failed(tr, errDown, true))
	require.Nil(t, b.circuit())
}
