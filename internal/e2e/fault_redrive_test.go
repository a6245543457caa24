//go:build faults

package e2e

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// Dead letters are redriven under load, after their handler was mended, and the
// member that handles them loses its connection and is killed at every step. In
// the end every order has taken effect once, in order per key.
func TestKilledAtEveryStepOfARedrive(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		broken := w.join(memberSpec{Name: "broken", Session: 2 * time.Second, Attempts: 2, NoBreaker: true})
		stop := w.write(load{perSecond: 200, kind: everyNth("poison", 10)})
		w.eventually(func() bool { return len(w.deadKeys()) > 20 }, "keys with dead letters")
		broken.leave()
		m := w.join(memberSpec{Name: "mended", Session: 2 * time.Second, Cured: true})
		keys := w.deadKeys()
		for _, at := range []moment{
			before("redrive"), after("redrive"), before("redriven"), after("redriven"), before("commit of promote"), after("commit of promote"),
		} {
			for what, strike := range map[string]func(*gateConn){
				"connection cut": (*gateConn).close,
				"killed":         func(*gateConn) { m.kill() },
			} {
				// One key at a time: there must be something left for the next moment.
				w.redrive(inbox.DeadFilter{Key: keys[0], State: "dead"})
				keys = keys[1:]
				w.blow(m, at, what, strike)
			}
		}
		stop()
		w.redrive(inbox.DeadFilter{State: "dead"})
		w.eventually(func() bool { return w.number(deadSQL) == 0 }, "nothing is dead any more")
		require.Empty(t, w.judge(true))
		require.Greater(t, w.number(`SELECT count(*) FROM inbox.dead WHERE state = 'redriven'`), 30)
	})
}

func (w *faultWorld) redrive(f inbox.DeadFilter) {
	w.Helper()
	_, err := inbox.Redrive(w.Context(), w.consumer, "", f, inbox.DeadAction{By: "test", Reason: "the handler was mended"})
	require.NoError(w, err)
}

// deadKeys are the keys behind whose dead letter more waits.
func (w *faultWorld) deadKeys() []string {
	w.Helper()
	rows, err := w.consumer.Query(w.Context(), `SELECT key FROM inbox.dead WHERE `+undealt+` GROUP BY key HAVING count(*) > 1`)
	require.NoError(w, err)
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(w, err)
	return keys
}
