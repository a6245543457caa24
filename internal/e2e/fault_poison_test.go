package e2e

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

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

// poisonous are the orders whose handler fails.
func (w *faultWorld) poisonous() []history.Write {
	w.Helper()
	rows, err := w.shop.Query(w.Context(), `SELECT user_id, n FROM orders WHERE kind = 'poison'`)
	require.NoError(w, err)
	orders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[history.Write])
	require.NoError(w, err)
	return orders
}
