//go:build faults

package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// drainSlack is the machine's: ending a process, closing connections.
const drainSlack = 2 * time.Second

// SIGTERM while slow handlers run that finish in time: all of them commit and are
// acknowledged, and nothing comes again.
func TestDrainFinishesWhatRuns(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		const timeout = 10 * time.Second
		first := w.join(memberSpec{Name: "first", Session: 2 * time.Second, DrainTimeout: timeout, Slow: 1500 * time.Millisecond})
		stop := w.write(load{perSecond: 100, kind: everyNth("slow", 2)})
		running := w.awaitRunning(first)
		took := first.leave()
		require.Less(t, took, timeout)
		for _, event := range running {
			require.Equal(t, 1, w.number(`SELECT count(*) FROM effects WHERE event_id = $1 AND member = 'first'`, event), "what ran has committed")
		}
		t.Logf("%d handlers were running; the member left after %.1f s", len(running), took.Seconds())
		require.Zero(t, first.stats().Failures)
		second := w.join(memberSpec{Name: "second", Session: 2 * time.Second})
		stop()
		w.judge(true)
		// Kafka's offset ends before the first message that had to wait for a key. A
		// channel that the broker itself has closed takes acknowledgements along.
		if b.rabbitMQ != "" && !strings.Contains(first.output(), "INTERNAL_ERROR") {
			require.Zero(t, second.stats().Duplicates, "what has committed was acknowledged")
		}
	})
}

// SIGTERM while handlers run that take longer than the drain timeout: Run returns
// in time, what ran has no effect, and comes again.
func TestDrainTimeout(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		const timeout = 2 * time.Second
		first := w.join(memberSpec{Name: "first", Session: 2 * time.Second, DrainTimeout: timeout, Slow: time.Minute})
		stop := w.write(load{perSecond: 100, kind: everyNth("slow", 2)})
		running := w.awaitRunning(first)
		took := first.leave()
		require.Less(t, took, timeout+drainSlack, "what fits into the grace period of a pod is the drain timeout")
		require.GreaterOrEqual(t, took, timeout, "they had their time")
		for _, event := range running {
			require.False(t, w.hasEffect(event), "what was cut off has no effect")
		}
		t.Logf("%d handlers were running; the member left after %.1f s of %.1f s", len(running), took.Seconds(), timeout.Seconds())
		require.Zero(t, first.stats().Failures, "being told to stop is no failed attempt")
		w.join(memberSpec{Name: "second", Session: 2 * time.Second})
		stop()
		w.judge(true)
		for _, event := range running {
			require.Equal(t, 1, w.number(`SELECT count(*) FROM effects WHERE event_id = $1 AND member = 'second'`, event), "what was cut off comes again")
		}
	})
}

// SIGTERM while the database does not answer: Run still returns in time.
func TestDrainWithASilentDatabase(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		const timeout = 2 * time.Second
		first := w.join(memberSpec{Name: "first", Session: 2 * time.Second, DrainTimeout: timeout, OverSQL: b.kafka != nil})
		stop := w.write(load{perSecond: 200})
		w.eventually(func() bool { return w.effects() > 20 }, "the member works")
		commit := first.gate.set(before("commit of handler"))
		claim := first.gate.set(before("claim"))
		<-commit.met
		<-claim.met
		first.gate.hush() // one commit, one claim and whatever else runs are never answered
		stop()
		first.send(syscall.SIGTERM)
		w.eventually(func() bool { return strings.Contains(first.output(), returnedPrefix) }, "Run returns")
		took := first.returned()
		t.Logf("Run returned after %.1f s of %.1f s", took.Seconds(), timeout.Seconds())
		require.Less(t, took, timeout+silentGrace)
		_ = first.signal(syscall.SIGKILL) // it still waits for its pool's connections
		first.gate.cut()
		w.join(memberSpec{Name: "second", Session: 2 * time.Second})
		w.judge(true)
	})
}

// silentGrace is how long Run may still wait after the drain timeout for a
// database that does not answer.
const silentGrace = 4 * time.Second

// awaitRunning waits until all handlers of m run, most of them slow, and returns
// their events.
func (w *faultWorld) awaitRunning(m *member) (events []string) {
	w.Helper()
	const state = `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()
		AND state = 'idle in transaction' AND backend_xid IS NOT NULL AND clock_timestamp() - state_change > '100 ms'`
	w.eventually(func() bool { return w.number(state, m.spec.Name) == memberConcurrency }, "all handlers run")
	events = m.gate.between()
	require.NotEmpty(w, events)
	return events
}
