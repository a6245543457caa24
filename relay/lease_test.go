package relay

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func (r *Relay) owns() bool { return r.Stats().Pipelines[0].Shards > 0 }

// An owner that falls silent without leaving (its process is gone) is replaced
// when its heartbeat has expired, and not before.
func TestTakeoverAfterExpiry(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	stop := running(t, r)
	eventually(t, r.owns, "owns")
	require.NoError(t, stop())
	// The row of a dead instance, and its leases.
	db.exec(t, `INSERT INTO outbox.instance (name, expires_at) VALUES ('dead', clock_timestamp() + interval '1 second')`)
	db.exec(t, `UPDATE outbox.lease SET owner = 'dead'`)
	expires := scan[time.Time](t, db.admin, `SELECT expires_at FROM outbox.instance`)
	r = newRelay(t, db.relay, config(&recorder{}))
	running(t, r)
	eventually(t, r.owns, "taken over")
	require.True(t, scan[bool](t, db.admin, `SELECT clock_timestamp() >= $1`, expires))
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance WHERE name = 'dead'`))
}

// A position with an old epoch is refused, whoever is the owner by name.
func TestFlushWithAStaleEpochIsRefused(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune.flushEvery = time.Hour // only when we say so
	running(t, r)
	eventually(t, r.caughtUp, "caught up")
	s := r.engines[0].session()
	require.NotNil(t, s)
	rows := scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "published")
	db.exec(t, `UPDATE outbox.lease SET epoch = epoch + 1 WHERE shard = 3`)
	_, err := s.flush(t.Context(), true)
	require.ErrorIs(t, err, errLeaseLost)
	require.ErrorContains(t, err, "1 of 64 shards refused")
	require.Equal(t, rows+1, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`))
	require.False(t, scan[bool](t, db.admin, `SELECT 3 = ANY(shards) FROM outbox.position ORDER BY n DESC LIMIT 1`))

	// The shard is dropped and, since nobody owns it, taken again under a new epoch;
	// the session goes on.
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(*) FROM outbox.lease WHERE owner = $1 AND (shard <> 3 OR epoch = 3)`, s.t.name) == 64
	}, "taken again")
	db.write(t, "k", "2")
	eventually(t, func() bool { return slices.Equal([]string{"1", "2"}, p.payloads()) }, "goes on")
	require.Same(t, s, r.engines[0].session())

	// The same owner's flush from before that is refused too.
	tag, err := db.relay.Exec(t.Context(), r.q.flush, flushArgs(s.name, s.t, []flushed{{shard: 3, epoch: 1, at: start}})...)
	require.NoError(t, err)
	require.Zero(t, tag.RowsAffected())
}

// After the deadline nothing is handed to the publisher any more, even if no timer
// has fired yet: the process may just have been woken up.
func TestNothingIsPublishedAfterTheLease(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var skip atomic.Int64
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune.now = func() time.Time { return time.Now().Add(time.Duration(skip.Load())) }
	blocked := make(chan struct{})
	release := make(chan struct{})
	wake := sync.OnceFunc(func() { close(release) })
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		if call == 0 {
			close(blocked)
			<-release // asleep: deaf to its context
			for i := range results {
				results[i] = errAway
			}
		}
		return results
	}
	running(t, r)
	t.Cleanup(wake) // before Run is waited for
	db.write(t, "k", "1")
	<-blocked
	first := r.engines[0].session()
	skip.Store(int64(r.cfg.Lease)) // asleep for longer than the lease
	require.False(t, first.t.alive())
	wake()
	eventually(t, func() bool { return r.engines[0].session() != first }, "session given up")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published under a new lease")
	require.NotEqual(t, first.t.name, r.engines[0].session().t.name)
}

// The deadline counts from before the heartbeat was sent, and ends before the
// lease does.
func TestDeadlineIsBeforeExpiry(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	// A heartbeat that is answered late.
	r.q.join = strings.Replace(r.q.join, "VALUES ($1,", "SELECT $1,", 1)
	r.q.join = strings.TrimSuffix(r.q.join, ")") + " FROM pg_sleep(0.3)"
	sent := time.Now()
	tn, err := r.join(t.Context(), token{})
	require.NoError(t, err)
	defer tn.end(nil)
	require.Less(t, tn.deadline.Sub(sent), r.cfg.Lease*4/5+100*time.Millisecond)
	remaining := scan[float64](t, db.admin, `SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM outbox.instance`)
	require.Greater(t, remaining, time.Until(tn.deadline).Seconds())
}

// When the instance row is gone, someone else has taken over: the tenure ends and
// the relay comes back under a new name.
func TestDeletedInstanceRowEndsTheTenure(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	cfg := config(&recorder{})
	cfg.Lease = time.Second
	r := newRelay(t, db.relay, cfg)
	running(t, r)
	eventually(t, r.owns, "owns")
	name := r.engines[0].session().t.name
	db.exec(t, `DELETE FROM outbox.instance`)
	eventually(t, func() bool { s := r.engines[0].session(); return s != nil && s.t.name != name }, "back under a new name")
}

// A flush that meets a takeover under way waits for it and is then refused: it must
// not decide by what the leases were when it began.
func TestFlushWaitsForATakeover(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := byHand(t, newRelay(t, db.relay, config(&recorder{})))
	db.write(t, "k", "1")
	pr, err := s.probe(t.Context())
	require.NoError(t, err)
	s.progress.advance(allShards, pr.position(), true)
	rows := scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`)

	takeover, err := db.admin.Begin(t.Context())
	require.NoError(t, err)
	defer takeover.Rollback(context.Background())
	_, err = takeover.Exec(t.Context(), `UPDATE outbox.lease SET owner = 'other', epoch = epoch + 1`)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := s.flush(context.Background(), false)
		done <- err
	}()
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	}, "the flush waits")
	require.NoError(t, takeover.Commit(t.Context()))
	require.ErrorIs(t, <-done, errLeaseLost)
	require.Equal(t, rows, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`))
}

// A stop while a flush is under way waits for it: given up, it would go on in the
// server and might come after the last one.
func TestStopWaitsForAFlush(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	stop := running(t, r)
	eventually(t, r.caughtUp, "caught up")
	lock, err := db.admin.Begin(t.Context())
	require.NoError(t, err)
	defer lock.Rollback(context.Background())
	_, err = lock.Exec(t.Context(), `SELECT FROM outbox.lease FOR UPDATE`)
	require.NoError(t, err)
	waiting := func() int {
		return scan[int](t, db.admin, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	}
	db.write(t, "k", "1")
	eventually(t, func() bool { return waiting() == 1 }, "the flush waits")
	db.write(t, "k", "2")
	eventually(t, func() bool { return len(p.messages()) == 2 }, "published meanwhile")
	done := make(chan error, 1)
	go func() { done <- stop() }()
	pgtest.Never(t, func() bool { return waiting() > 1 }, 300*time.Millisecond, tick, "one flush at a time")
	require.NoError(t, lock.Rollback(t.Context()))
	require.NoError(t, <-done)

	p2 := &recorder{}
	r2 := newRelay(t, db.relay, config(p2))
	running(t, r2)
	eventually(t, r2.caughtUp, "caught up")
	require.Empty(t, p2.messages())
}
