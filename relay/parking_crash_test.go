package relay

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// A relay dies at each step of parking and of publishing what is parked: nothing is
// lost, first publications are in order, and nothing is published more than twice.
func TestKilledAtAnyStepOfParking(t *testing.T) {
	t.Parallel()
	q := newQueries("outbox")
	for name, at := range map[string]struct {
		kind string
		fate fate
	}{
		"before parking":                     {q.park, unsent},
		"parked, not committed":              {"commit after " + q.park, unsent},
		"parked":                             {"commit after " + q.park, unheard},
		"before the claim":                   {q.claimHeads, unsent},
		"claimed":                            {q.claimHeads, unheard},
		"head published":                     {q.claimQueue, unsent},
		"queue claimed":                      {q.claimQueue, unheard},
		"published":                          {q.fence, unsent},
		"published, recorded, not committed": {"commit after " + q.promote, unsent},
		"published and recorded":             {"commit after " + q.promote, unheard},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killedAt(t, at.kind, at.fate)
		})
	}
}

func killedAt(t *testing.T, kind string, at fate) {
	db := newDatabase(t)
	var got history
	failures := map[string]*atomic.Int64{"k": {}, "l": {}}
	verdict := func(m brokers.Message) error {
		if string(m.Payload) == "3" && failures[m.Key].Add(1) <= 3 { // so many park it
			return errTopic
		}
		got.add([]brokers.Message{m})
		return nil
	}
	// Dead is who has no connection any more and sends nothing.
	var dead atomic.Bool
	c := &cutter{}
	c.judge = func(k string, _ int) fate {
		if dead.Load() {
			return unsent
		}
		if strings.HasPrefix(k, kind) {
			dead.Store(true)
			return at
		}
		return spared
	}
	mortal := func(ctx context.Context, call int, msgs []brokers.Message) []error {
		if dead.Load() {
			return awayFrom(ctx, call, msgs)
		}
		return failing(verdict)(ctx, call, msgs)
	}
	cfg := config(&recorder{answer: mortal})
	cfg.DrainTimeout = 10 * time.Millisecond
	r := parkingRelay(t, db, cfg)
	r.pool = c.pool(t, db)
	running(t, r)
	want := map[string]int{"k": 6, "l": 6}
	for i := 1; i <= 6; i++ {
		db.write(t, "k", fmt.Sprint(i))
		db.write(t, "l", fmt.Sprint(i))
	}
	eventually(t, dead.Load, "died")
	db.exec(t, `DELETE FROM outbox.instance`) // as if its lease had run out
	other := parkingRelay(t, db, config(&recorder{answer: failing(verdict)}))
	running(t, other)
	eventually(t, func() bool { return got.missing(want) == 0 }, "all published")
	eventually(t, func() bool { return db.parkedStates(t) == "" && other.caughtUp() }, "nothing left")
	require.Empty(t, got.violations(want, false))
	got.mu.Lock()
	defer got.mu.Unlock()
	for key, list := range got.keys {
		times := map[int]int{}
		for _, n := range list {
			times[n]++
			require.LessOrEqual(t, times[n], 2, "%s %d", key, n)
		}
	}
}

// A relay loses a shard while it publishes a parked event of it: what is queued
// behind belongs to the new owner, for whom the next of the key is dead.
func TestShardIsLostWhileAParkedEventIsPublished(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"fenced": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			p := newHeld()
			cfg := config(p)
			cfg.DrainTimeout = 50 * time.Millisecond
			r := parkingRelay(t, db, cfg)
			if broken {
				r.q.claimQueue = strings.Replace(r.q.claimQueue, "l.epoch = a.epoch AND l.owner = $2", "$2 <> ''", 1)
			}
			running(t, r)
			for i := range 3 {
				db.write(t, "k", fmt.Sprint(i+1))
			}
			eventually(t, func() bool { return db.parkedStates(t) == "1 dead, 2 blocked, 3 blocked" }, "parked")
			p.mended.Store(true)
			_, err := Redrive(t.Context(), db.relay, "", ParkedFilter{}, why)
			require.NoError(t, err)
			<-p.entered
			first := r.engines[0].session()

			db.exec(t, `DELETE FROM outbox.instance`)
			next := &recorder{answer: failing(func(m brokers.Message) error {
				if string(m.Payload) == "2" {
					return errBad
				}
				return nil
			})}
			running(t, parkingRelay(t, db, config(next)))
			eventually(t, func() bool { return db.parkedStates(t) == "2 dead, 3 blocked" }, "the new owner goes on")
			require.Equal(t, []string{"1"}, next.payloads())
			close(p.release) // all that it sends now succeeds
			eventually(t, func() bool { return r.engines[0].session() != first }, "noticed")
			if broken {
				require.Equal(t, []string{"1", "3"}, p.payloads(), "the control overtakes")
				return
			}
			require.Equal(t, []string{"1"}, p.payloads())
			require.Equal(t, "2 dead, 3 blocked", db.parkedStates(t))
		})
	}
}

// The retries of events that keep failing are at most a fifth of what is published,
// beyond the burst that is always allowed and one for each look.
func TestRetriesAreAShareOfTheTraffic(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var mu sync.Mutex
	var published, retries int
	p := &recorder{answer: failing(func(m brokers.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(m.Key, "bad") {
			published++
			return nil
		}
		retries++ // all have been tried before
		return errTopic
	})}
	r := parkingRelay(t, db, config(p))
	r.tune.park.attempts = 1_000_000
	r.tune.park.topicTrip = 1 << 30 // each event by itself: a topic's circuit would let single probes through only
	r.tune.park.base, r.tune.park.max = time.Millisecond, time.Millisecond
	running(t, r)
	eventually(t, r.caughtUp, "caught up")
	db.exec(t, `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks, attempts)
SELECT 'test', outbox.uuid_v7(), 't', 't', 'bad' || g, 'test', '/test', now(), 'x', 'retrying', true, 1 FROM generate_series(1, 2000) g`)
	require.NoError(t, r.engines[0].session().lookForParked(t.Context()))
	const events = 4000
	for i := range 20 {
		db.exec(t, `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't', 'k' || g, 'test', '/test', 'x' FROM generate_series(1, $1::int) g`, events/20)
		count := func() int { mu.Lock(); defer mu.Unlock(); return published }
		eventually(t, func() bool { return count() >= (i+1)*events/20 }, "published")
		<-time.After(50 * time.Millisecond) // traffic has a rate
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d published, %d retries of 2000 events that are always due", published, retries)
	require.Greater(t, retries, retryBurst+100, "the budget is used")
	require.Less(t, float64(retries), retryShare*events+retryBurst+300)
}
