//go:build faults

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// A member loses its connection, and is killed, at every step of a message's way,
// under load. The gate holds the transaction exactly there, and what the database
// says of it then is checked, before the blow falls.
func TestKilledAtEveryStep(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) { killAtEveryStep(t, b, memberSpec{}) })
}

// The same with batches: one transaction for several orders. What matters happens
// in the database, so one broker is enough.
func TestKilledAtEveryStepOfABatch(t *testing.T) {
	t.Parallel()
	killAtEveryStep(t, rabbitTopic(t, svctest.RabbitMQ(t)), memberSpec{Batch: true})
}

// The same with a broker destination for dead letters: a copy may be repeated,
// none is missing.
func TestKilledAtEveryStepOfDeadLettersOnTheirWayToTheBroker(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		to := svctest.Unique("dead")
		if b.kafka != nil {
			to = createTopic(t, b.kafka, 1)
		}
		killAtEveryStep(t, b, memberSpec{DeadLetterTo: to})
	})
}

func killAtEveryStep(t *testing.T, b faultBroker, spec memberSpec) {
	w := newFaultWorld(t, b)
	spec.Name, spec.Session, spec.Attempts = "only", time.Second, 2
	spec.NoBreaker = true // at the end of the load only poison is left, and would wait for a success
	m := w.join(spec)
	stop := w.write(load{perSecond: 300, kind: everyNth("poison", 20)})
	w.eventually(func() bool { return w.effects() > 20 }, "the member works")
	steps := []moment{
		before("claim"), after("claim"), before("effect"), after("effect"), after("handler"),
		before("commit of handler"), after("commit of handler"),
		before("dead"), after("dead"), after("commit of dead"), before("blocked"), after("commit of blocked"),
	}
	if spec.DeadLetterTo != "" {
		steps = []moment{before("moving"), before("commit of moving"), after("commit of moving"), before("moved"), after("moved")}
	}
	// Kills last: messages that a killed process had are tried alone for a while,
	// and not in batches.
	for _, at := range steps {
		w.blow(m, at, "connection cut", (*gateConn).close)
	}
	for _, at := range steps {
		w.blow(m, at, "killed", func(*gateConn) { m.kill() })
	}
	stop()
	dead := w.judge(true)
	if spec.DeadLetterTo != "" {
		w.requireCopies(spec.DeadLetterTo, len(dead))
	}
	if spec.Batch {
		require.Positive(t, w.inBatches(), "there were batches")
		t.Logf("%d effects of %d in batches", w.inBatches(), w.effects())
	}
}

// blow holds a transaction of m at a moment, makes sure that it is there, and
// strikes.
func (w *faultWorld) blow(m *member, at moment, what string, strike func(*gateConn)) {
	w.Helper()
	w.Logf("%s: %s", at, what)
	c := w.hold(m, at)
	strike(c)
	c.close()
}

// hold holds a transaction of m at a moment that the database confirms.
func (w *faultWorld) hold(m *member, at moment) *gateConn {
	w.Helper()
	for {
		tr := m.gate.set(at)
		select {
		case c := <-tr.met:
			if at == after("claim") && !w.claims(c) {
				c.release() // the claim of a duplicate
				continue
			}
			w.requireAt(c, at)
			return c
		case <-time.After(time.Minute):
			w.Fatalf("nothing came to %s", at)
		}
	}
}

// claimedSQL counts the transactions of a connection that have written something.
const claimedSQL = `SELECT count(*) FROM pg_stat_activity WHERE client_port = $1 AND backend_xid IS NOT NULL`

// claims reports whether the held transaction has claimed something.
func (w *faultWorld) claims(c *gateConn) bool {
	for range 10 {
		if w.number(claimedSQL, c.port()) == 1 {
			return true
		}
	}
	return false
}

// requireAt asserts that the database sees the held transaction where it is said
// to be.
func (w *faultWorld) requireAt(c *gateConn, at moment) {
	w.Helper()
	type seen struct{ claimed, open, effect, dead bool }
	look := func() (s seen) {
		s.claimed = w.number(claimedSQL, c.port()) == 1
		s.open = w.number(`SELECT count(*) FROM pg_stat_activity WHERE client_port = $1 AND state <> 'idle'`, c.port()) == 1
		if id := c.about(); id != "" {
			s.effect = w.hasEffect(id)
			s.dead = w.number(deadSQL+` AND id = $1`, id) == 1
		}
		return s
	}
	want := seen{claimed: true, open: true} // in the midst
	switch at {
	case before("claim"), before("redrive"):
		want.claimed = false
	case before("redriven"), after("redriven"), before("commit of promote"):
		want.dead = true
	case after("commit of handler"), after("commit of promote"):
		want = seen{effect: true}
	case after("commit of dead"), after("commit of blocked"), after("commit of moving"):
		want = seen{dead: true}
	case before("moved"), after("moved"):
		want = seen{}
	}
	w.eventually(func() bool { return look() == want }, "%s: want %+v, the database says %+v", at, want, look())
}

// requireCopies asserts that each dead letter, n of them, has been copied to the
// broker, and each row says so.
func (w *faultWorld) requireCopies(to string, n int) {
	w.Helper()
	require.Positive(w, n)
	require.Equal(w, n, w.number(`SELECT count(*) FROM inbox.dead WHERE state IN ('moved', 'blocked')`), "moved, or blocked and never tried")
	moved := w.number(`SELECT count(*) FROM inbox.dead WHERE state = 'moved'`)
	spec := memberSpec{Topic: to, Kafka: w.broker.kafka, RabbitMQ: w.broker.rabbitMQ, From: []string{to}, Session: 2 * time.Second}
	copies := gather(w.T, spec.subscriber())
	w.eventually(func() bool { return copies.count() >= moved }, "a copy of each of %d dead letters", moved)
	require.Equal(w, moved, w.number(`SELECT count(*) FROM inbox.dead WHERE state = 'moved' AND id = ANY($1)`, copies.ids()))
	require.Greater(w, copies.total(), moved, "the kill between the confirmation and its record repeats a copy")
}
