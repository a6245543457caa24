package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// Every transition of a circuit: closed, open, half-open, open again, recovering
// with a growing window, open from there, and closed.
func TestCircuitTransitions(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	c := newCircuit(2, time.Hour, func() time.Time { return now })
	state := func() circuitState {
		s, _, _ := c.look()
		return s
	}
	sent := func(want, expected int) {
		t.Helper()
		n, wait := c.acquire(want)
		require.Equal(t, expected, n)
		require.Equal(t, n == 0, wait > 0)
	}
	boom := errors.New("boom")
	sent(5000, 5000)
	require.False(t, c.failed(boom))
	c.succeeded() // failures in a row
	require.False(t, c.failed(boom))
	require.Equal(t, circuitClosed, state())
	require.True(t, c.failed(boom))
	require.Equal(t, circuitOpen, state())
	c.until = now.Add(time.Second) // the pause is random
	sent(5000, 0)
	c.failed(boom) // an answer that was on its way: no longer pause
	require.Equal(t, now.Add(time.Second), c.until)
	c.succeeded()
	require.Equal(t, circuitOpen, state())

	now = now.Add(time.Second)
	sent(5000, 1)
	require.Equal(t, circuitHalfOpen, state())
	sent(5000, 0) // one probe at a time
	require.True(t, c.failed(boom))
	require.Equal(t, circuitOpen, state())

	now = c.until
	sent(5000, 1)
	c.spared() // it did not get so far: at once again
	sent(5000, 1)
	c.succeeded()
	require.Equal(t, circuitRecovering, state())
	sent(5000, 4)
	c.succeeded()
	sent(5000, 16)
	require.True(t, c.failed(boom), "one failure is enough")
	now = c.until
	sent(5000, 1)
	c.succeeded()
	for window := recoveryStart; window < recovered; window *= recoveryGrowth {
		sent(5000, window)
		c.succeeded()
	}
	require.Equal(t, circuitClosed, state())
	sent(5000, 5000)
}

func TestCircuitPausesGrow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	c := newCircuit(1, 8*time.Second, func() time.Time { return now })
	var longest time.Duration
	for range 200 {
		c.failed(errors.New("boom"))
		longest = max(longest, c.until.Sub(now))
		require.LessOrEqual(t, c.until.Sub(now), 8*time.Second)
		now = c.until.Add(time.Nanosecond)
		c.acquire(1)
	}
	require.Greater(t, longest, 4*time.Second)
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	b := &retryBudget{tokens: 3}
	require.Equal(t, 3, b.spend(10))
	require.Equal(t, 1, b.spend(10), "one is always allowed")
	b.earn(100)
	require.Equal(t, 20, b.spend(100), "a fifth of the traffic")
	require.Equal(t, 0, b.spend(0))
	b.earn(1_000_000)
	require.Equal(t, retryBurst, b.spend(1_000_000))
}

// Broker away: nothing is parked, single probes with pauses; then it recovers in
// growing steps, in order.
func TestDeadBrokerCostsATrickle(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var away atomic.Bool
	away.Store(true)
	var mu sync.Mutex
	var down, up []int // sizes of the calls
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		mu.Lock()
		defer mu.Unlock()
		results := make([]error, len(msgs))
		if away.Load() {
			down = append(down, len(msgs))
			for i := range results {
				results[i] = errAway
			}
		} else {
			up = append(up, len(msgs))
		}
		return results
	}}
	var want []string
	for i := range 500 {
		db.write(t, "k", fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	r := parkingRelay(t, db, config(p))
	r.tune.retryMax = 200 * time.Millisecond
	running(t, r)
	calls := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(down)
	}
	eventually(t, func() bool { return calls() >= 8 }, "probes")
	mu.Lock()
	for _, size := range down[1:] {
		require.Equal(t, 1, size, "single probes")
	}
	mu.Unlock()
	eventually(t, func() bool { return r.Stats().Pipelines[0].Circuit == "open" }, "seen")
	began, n := time.Now(), calls()
	pgtest.Never(t, func() bool { return calls() > n+40 }, time.Second, tick, "a trickle")
	t.Logf("%d probes in %v", calls()-n, time.Since(began))
	require.Empty(t, db.parkedStates(t))
	away.Store(false)
	eventually(t, func() bool { return len(p.messages()) == 500 }, "recovered")
	require.Equal(t, want, p.payloads())
	require.NotEqual(t, "open", r.Stats().Pipelines[0].Circuit)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []int{1, 4, 16, 64, 256}, up[:5], "gradual")
}

// Promise 4, with the fault wrapper around the in-memory broker: one bad event
// stops its own key, one bad topic itself, one dead broker its own pipeline.
func TestFailuresAreContained(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	healthy := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
	dead := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
	dead.Stop()
	var mended atomic.Bool
	faulty := brokertest.Faulty(healthy.Publisher(), func(_ int, m brokers.Message) brokertest.Fault {
		switch {
		case mended.Load():
		case m.Topic == "bad":
			return brokertest.Fault{Err: errTopic}
		case string(m.Payload) == "bad":
			return brokertest.Fault{Err: errBad}
		}
		return brokertest.Fault{}
	})
	cfg := config(faulty)
	cfg.Pipelines = append(cfg.Pipelines, Pipeline{Name: "dead", To: dead.Publisher()})
	r := parkingRelay(t, db, cfg)
	running(t, r)
	const each = 30
	for i := range each {
		db.writeIn(t, "good", "a", fmt.Sprint(i))
		db.writeIn(t, "bad", "a", fmt.Sprint(i))
		text := fmt.Sprint(i)
		if i == 3 {
			text = "bad"
		}
		db.writeIn(t, "good", "b", text)
		db.writeIn(t, "good", "", "unkeyed")
	}
	eventually(t, func() bool { return len(healthy.Log("good")) == 2*each+3 && r.caughtUp() }, "all that can go")
	require.Empty(t, healthy.Log("bad"))
	eventually(t, func() bool { return r.Stats().Pipelines[0].TopicCircuits["bad"] == "open" }, "seen")
	require.Equal(t, "closed", r.Stats().Pipelines[0].Circuit)
	require.Equal(t, 0, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked WHERE pipeline = 'dead'`))
	require.Equal(t, each+each-3, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`))

	mended.Store(true)
	dead.Start()
	_, err := Redrive(t.Context(), db.relay, "", ParkedFilter{State: "dead"}, why)
	require.NoError(t, err)
	eventually(t, func() bool {
		return len(healthy.Log("good")) == 3*each && len(healthy.Log("bad")) == each && len(dead.Log("good")) == 3*each && len(dead.Log("bad")) == each
	}, "all")
	for _, log := range [][]brokers.Message{healthy.Log("good"), healthy.Log("bad"), dead.Log("good"), dead.Log("bad")} {
		next := map[string]int{}
		for _, m := range log {
			if m.Key == "" {
				continue
			}
			want := fmt.Sprint(next[m.Key])
			if m.Key == "b" && next[m.Key] == 3 {
				want = "bad"
			}
			require.Equal(t, want, string(m.Payload), m.Key)
			next[m.Key]++
		}
	}
}
