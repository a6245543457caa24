package relay

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// failingRelay heartbeats, holds shards, and gets nowhere for its pages' errors.
func failingRelay(t testing.TB, db *database) *Relay {
	r := newRelay(t, poolAs(t, db.url, "outbox_relay", 4), config(&recorder{}))
	r.q.fresh, r.tune.unable = `SELECT 1/0`, 300*time.Millisecond
	return r
}

func (db *database) sharing(t testing.TB) int {
	return scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance WHERE 'test' = ANY(pipelines)`)
}

func awayFrom(_ context.Context, _ int, msgs []brokers.Message) []error {
	results := make([]error, len(msgs))
	for i := range results {
		results[i] = errAway
	}
	return results
}

func (db *database) writeKeys(t testing.TB, keys int) {
	for i := range keys {
		db.write(t, fmt.Sprint("k", i), "1")
	}
}

// An engine that fails keeps its shards while nobody else is there, gives them up
// to whoever comes, and comes back when that one goes.
func TestFailingEngineGivesItsShareUp(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	running(t, failingRelay(t, db))
	db.shared(t, 64)
	db.writeKeys(t, 200)
	pgtest.Never(t, func() bool { return db.sharing(t) == 0 }, time.Second, tick, "alone")
	p := &recorder{}
	stop := running(t, newRelay(t, db.relay, config(p)))
	eventually(t, func() bool { return len(p.messages()) == 200 }, "published by the other")
	require.NoError(t, stop())
	db.shared(t, 64)
	require.Equal(t, 1, db.sharing(t))
}

// If all fail alike, shards move ever more seldom.
func TestEnginesThatAllFailDoNotThrash(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	a, b := failingRelay(t, db), failingRelay(t, db)
	running(t, a)
	running(t, b)
	db.shared(t, 32, 32)
	db.writeKeys(t, 200)
	moves := func() int { return scan[int](t, db.admin, `SELECT sum(epoch)::int FROM outbox.lease`) }
	before := moves()
	pgtest.Never(t, func() bool { return moves() > before+64*10 }, 5*time.Second, 50*time.Millisecond, "a handful of moves")
	require.Greater(t, moves(), before, "it was tried")
	t.Logf("%d moves of 64 shards in 5 s, %v after which an engine gives up", moves()-before, a.tune.unable)
}

// A broker that is away for all moves nothing; one that is away for one instance
// only leaves it without shards.
func TestBrokerAwayForOneInstanceOrAll(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]bool{"all": true, "one": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			other := &recorder{}
			if all {
				other.answer = awayFrom
			}
			for _, p := range []*recorder{{answer: awayFrom}, other} {
				cfg := config(p)
				cfg.DrainTimeout = 50 * time.Millisecond
				r := newRelay(t, poolAs(t, db.url, "outbox_relay", 4), cfg)
				r.tune.unable = 300 * time.Millisecond
				running(t, r)
			}
			db.shared(t, 32, 32)
			db.writeKeys(t, 200)
			if all {
				pgtest.Never(t, func() bool { return db.sharing(t) != 2 }, 2*time.Second, tick)
				return
			}
			eventually(t, func() bool { return len(other.messages()) >= 200 }, "published by the other")
		})
	}
}
