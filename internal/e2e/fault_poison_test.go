//go:build faults

package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/history"
)

// Poison: the handler fails for good for one order in a thousand, or in ten. Each
// of these becomes a dead letter, and what is behind it in its key does, or
// passes; all others take effect in order.
func TestPoison(t *testing.T) {
	t.Run("one in 1000", func(t *testing.T) {
		overBoth(t, func(t *testing.T, b faultBroker) { poison(t, b, 1000, false) })
	})
	t.Run("one in 10", func(t *testing.T) {
		overBoth(t, func(t *testing.T, b faultBroker) { poison(t, b, 10, false) })
	})
	t.Run("one in 10, others pass", func(t *testing.T) {
		overBoth(t, func(t *testing.T, b faultBroker) { poison(t, b, 10, true) })
	})
}

func poison(t *testing.T, b faultBroker, oneIn int64, passKey bool) {
	w := newFaultWorld(t, b)
	w.join(memberSpec{Name: "only", Session: 2 * time.Second, Attempts: 2, PassKey: passKey})
	stop := w.write(load{perSecond: 500, kind: everyNth("poison", oneIn)})
	w.eventually(func() bool {
		return w.effects()+w.number(deadSQL) > 600 && w.number(deadSQL) > 0
	}, "load and poison")
	stop()
	poisonous := w.poisonous()
	// Others go on until all poison is dead: if nothing but poison were left, it
	// would look like an outage, and wait.
	stop = w.write(load{perSecond: 50})
	w.eventually(func() bool {
		dead := w.dead()
		return !slices.ContainsFunc(poisonous, func(p history.Write) bool { return !slices.Contains(dead, p) })
	}, "all poison dies")
	stop()
	dead := w.judge(!passKey)
	isDead := map[history.Write]bool{}
	for _, d := range dead {
		isDead[d] = true
	}
	first := map[string]int64{}
	for _, p := range poisonous {
		require.True(t, isDead[p], "%v is poison", p)
		if n, ok := first[p.Key]; !ok || p.N < n {
			first[p.Key] = p.N
		}
	}
	if passKey {
		require.Len(t, dead, len(poisonous), "nothing else dies")
		return
	}
	for _, d := range dead {
		n, ok := first[d.Key]
		require.True(t, ok && d.N >= n, "%v died, and no poison is before it", d)
	}
}

// If the handler fails for every order, not the orders are at fault: the circuit
// opens, nothing dies but perhaps the first two, and all takes effect, in order,
// once the handler has been mended.
func TestPoisonEverywhere(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		broken := w.join(memberSpec{Name: "broken", Session: 2 * time.Second, Attempts: 3})
		stop := w.write(load{perSecond: 200, kind: everyNth("poison", 1)})
		w.eventually(func() bool { return count(t, w.shop, "orders") > 600 }, "load")
		w.eventually(func() bool { s := broken.statsNow(); return len(s.Circuits) == 1 && s.Failures > 50 }, "the circuit is open, and probed")
		stats := broken.statsNow()
		require.LessOrEqual(t, stats.DeadLettered, int64(2), "an outage makes no dead letters; that it is one shows the third message")
		require.Zero(t, w.effects())
		broken.leave()
		w.join(memberSpec{Name: "mended", Session: 2 * time.Second, Cured: true})
		stop()
		w.redrive(inbox.DeadFilter{State: "dead"})
		w.eventually(func() bool { return w.number(deadSQL) == 0 }, "what has died is redriven")
		require.Empty(t, w.judge(true))
		t.Logf("%d failed attempts, %d dead letters", stats.Failures, stats.DeadLettered)
	})
}

// poisonous are the orders whose handler fails.
func (w *faultWorld) poisonous() []history.Write {
	w.Helper()
	rows, err := w.shop.Query(w.Context(), `SELECT user_id, n FROM orders WHERE kind = 'poison'`)
	require.NoError(w, err)
	orders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[history.Write])
	require.NoError(w, err)
	return orders
}
