//go:build faults

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	frozenHandlerTimeout = 3 * time.Second
	// frozenTimeout is what inbox.Config.HandlerTimeout promises: 5 s more.
	frozenTimeout = frozenHandlerTimeout + 5*time.Second
	// frozenSlack is the machine's, not the product's.
	frozenSlack = 1500 * time.Millisecond
)

// A member is frozen (SIGSTOP) between claim and commit. Its successor gets the
// message when the broker has given the frozen one up, and waits for its claim
// until the database ends the frozen transaction: no longer than the configured
// time. Thawed, the zombie finds its transaction gone. Nothing is doubled, keys
// stay in order, and the zombie works again.
func TestFrozenMember(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		zombie := w.join(w.frozenSpec("zombie"))
		stop := w.write(load{perSecond: 200})
		w.eventually(func() bool { return w.effectsBy("zombie") > 20 }, "the first works")
		w.join(w.frozenSpec("successor"))
		w.bothWork("zombie", "successor")

		held := w.freeze(zombie, before("commit of handler"))
		event := held.about()
		waited := w.awaitBlocked("successor", held)
		w.eventually(func() bool { return w.hasEffect(event) }, "the successor handles the frozen message")
		delay := time.Since(waited)
		require.LessOrEqual(t, delay, frozenTimeout+frozenSlack, "a frozen member delays its successor by no more than HandlerTimeout and 5 s")
		require.Equal(t, 1, w.number(`SELECT count(*) FROM effects WHERE event_id = $1 AND member = 'successor'`, event))
		t.Logf("the successor waited %.1f s for the frozen claim, %.1f s are allowed", delay.Seconds(), frozenTimeout.Seconds())

		held.release()
		w.thaw(zombie)
		stop()
		w.judge(true)
	})
}

// A member that thaws while its successor waits for its claim commits: the
// successor finds a duplicate. For a moment both work on the same keys.
func TestZombieThawsWhileItsSuccessorWaits(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		spec := w.frozenSpec("zombie")
		spec.HandlerTimeout = 20 * time.Second // the database is patient
		zombie := w.join(spec)
		stop := w.write(load{perSecond: 200})
		w.eventually(func() bool { return w.effectsBy("zombie") > 20 }, "the first works")
		spec.Name = "successor"
		w.join(spec)
		w.bothWork("zombie", "successor")

		held := w.freeze(zombie, before("commit of handler"))
		event := held.about()
		w.awaitBlocked("successor", held)
		zombie.send(syscall.SIGCONT)
		held.release()
		w.eventually(func() bool { return w.hasEffect(event) }, "the thawed member commits")
		require.Equal(t, 1, w.number(`SELECT count(*) FROM effects WHERE event_id = $1 AND member = 'zombie'`, event))
		w.thaw(zombie)
		stop()
		w.judge(true)
	})
}

func (w *faultWorld) frozenSpec(name string) memberSpec {
	return memberSpec{Name: name, Session: 2 * time.Second, HandlerTimeout: frozenHandlerTimeout, DrainTimeout: 5 * time.Second}
}

// bothWork waits until a has partitions or queues of its own and, over Kafka, b
// too. A queue's standby consumer has no work before it is needed.
func (w *faultWorld) bothWork(a, b string) {
	w.Helper()
	fromA, fromB := w.effectsBy(a), w.effectsBy(b)
	w.eventually(func() bool {
		return w.effectsBy(a) > fromA+20 && (w.broker.rabbitMQ != "" || w.effectsBy(b) > fromB+20)
	}, "both members work")
}

// freeze stops m when one of its transactions comes to a moment.
func (w *faultWorld) freeze(m *member, at moment) *gateConn {
	w.Helper()
	c := w.hold(m, at)
	m.send(syscall.SIGSTOP)
	return c
}

// awaitBlocked waits until a transaction of the named member waits for the held
// one, and returns when it was first seen to.
func (w *faultWorld) awaitBlocked(name string, held *gateConn) time.Time {
	w.Helper()
	w.eventually(func() bool {
		return w.number(`SELECT count(*) FROM pg_stat_activity frozen, pg_stat_activity waiting
			WHERE frozen.client_port = $1 AND waiting.application_name = $2 AND waiting.datname = current_database()
			  AND frozen.pid = ANY(pg_blocking_pids(waiting.pid))`, held.port(), name) > 0
	}, "%s waits for the frozen claim", name)
	return time.Now()
}

// thaw lets a frozen member go on and waits until it works again, which over
// RabbitMQ needs its successor to go.
func (w *faultWorld) thaw(zombie *member) {
	w.Helper()
	zombie.send(syscall.SIGCONT)
	if w.broker.rabbitMQ != "" {
		for _, m := range w.members {
			if m != zombie {
				m.leave()
			}
		}
	}
	done := w.effectsBy(zombie.spec.Name)
	w.eventually(func() bool { return w.effectsBy(zombie.spec.Name) > done+20 }, "the thawed member works again")
}
