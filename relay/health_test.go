package relay

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// soonStuck is a relay that calls a pipeline stuck after a moment.
func soonStuck(t *testing.T, db *database, p brokers.Publisher) *Relay {
	r := newRelay(t, db.relay, config(p))
	r.tune.stuck = 300 * time.Millisecond
	return r
}

func (r *Relay) condition() PipelineHealth { return r.Health().Pipelines[0] }

func TestHealthFromStartToEnd(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := soonStuck(t, db, &recorder{})
	h := r.Health()
	require.False(t, h.Ready)
	require.Contains(t, h.Reason, "not running")
	require.Equal(t, []PipelineHealth{{Name: "test"}}, h.Pipelines)

	stop := running(t, r)
	eventually(t, func() bool { return r.Health().Ready && r.condition().Shards == 64 && r.caughtUp() }, "ready")
	h = r.Health()
	require.Contains(t, h.Instance, "/")
	require.Empty(t, h.Reason)
	require.Positive(t, h.LeaseSeconds)
	// An idle pipeline moves: each look at the log that finds nothing is one.
	pgtest.Never(t, func() bool { return r.condition().Stuck }, time.Second, 20*time.Millisecond)
	require.Empty(t, r.condition().Cause)

	require.NoError(t, stop())
	require.False(t, r.Health().Ready)
	pgtest.Never(t, func() bool { return r.condition().Stuck }, 500*time.Millisecond, 50*time.Millisecond, "nothing is expected of a stopped one")
}

func TestHealthNamesTheCause(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		cause  Cause
		reason string
		stuck  bool
		answer error // nil = none
	}{
		{CauseBroker, "connection refused", true, &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("connection refused")}},
		// Its events are parked, and the log goes on.
		{CauseTopic, "unknown topic", false, &brokers.Error{Class: brokers.ClassDestination, Topic: "t", Err: errors.New("unknown topic")}},
		{CauseUnknown, "nothing has failed", true, nil},
	} {
		t.Run(string(tc.cause), func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			var mended atomic.Bool
			release := make(chan struct{})
			p := &recorder{answer: func(ctx context.Context, _ int, msgs []brokers.Message) []error {
				results := make([]error, len(msgs))
				if mended.Load() {
					return results
				}
				if tc.answer == nil {
					select {
					case <-ctx.Done():
					case <-release:
					}
					return results
				}
				for i := range results {
					results[i] = tc.answer
				}
				return results
			}}
			r := soonStuck(t, db, p)
			running(t, r)
			eventually(t, r.caughtUp, "caught up")
			db.write(t, "k", "1")
			eventually(t, func() bool { c := r.condition(); return c.Cause == tc.cause && c.Stuck == tc.stuck }, "named")
			require.Contains(t, r.condition().Reason, tc.reason)
			require.True(t, r.Health().Ready, "another start would not help")

			mended.Store(true)
			close(release)
			eventually(t, func() bool { c := r.condition(); return c.Cause == "" && !c.Stuck && len(p.messages()) == 1 }, "mended")
		})
	}
}

// Who holds no shards because others do is not stuck, however long.
func TestStandbyIsNotStuck(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	stop := running(t, newRelay(t, db.relay, config(&recorder{})))
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(*) FROM outbox.lease WHERE owner <> ''`) == 64
	}, "registered")
	require.NoError(t, stop())
	db.exec(t, `INSERT INTO outbox.instance (name, pipelines, expires_at) VALUES ('other', '{test}', clock_timestamp() + interval '1 hour')`)
	db.exec(t, `UPDATE outbox.lease SET owner = 'other', epoch = epoch + 1`)

	r := soonStuck(t, db, &recorder{})
	running(t, r)
	eventually(t, func() bool { return r.Health().Ready }, "ready")
	pgtest.Never(t, func() bool { c := r.condition(); return c.Stuck || c.Shards > 0 }, time.Second, 20*time.Millisecond)
	// Its time begins with the shards: it is not stuck in the moment that it gets them.
	last := 0.0
	eventually(t, func() bool {
		still := r.condition().StillSeconds
		again := still < last
		last = still
		return again
	}, "waiting for shards is not standing still")
}

// Nobody else is asked, so it answers while Postgres does not.
func TestHealthWithoutPostgres(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t)
	db := migrated(t, server.URL("postgres"))
	called, release := make(chan struct{}), make(chan struct{})
	cfg := config(&recorder{answer: func(_ context.Context, call int, msgs []brokers.Message) []error {
		if call == 0 { // it holds the end of the tenure up
			close(called)
			<-release
		}
		return make([]error, len(msgs))
	}})
	cfg.Lease = time.Second
	r := newRelay(t, db.relay, cfg)
	r.tune.stuck = 300 * time.Millisecond
	running(t, r)
	t.Cleanup(func() { close(release) })
	eventually(t, func() bool { return r.Health().Ready && r.caughtUp() }, "ready")
	db.write(t, "k", "1")
	<-called

	require.NoError(t, server.Kill())
	noticed := func() bool { return !r.Health().Ready && r.condition().Stuck }
	eventually(t, noticed, "noticed")
	h := r.Health()
	require.NotEmpty(t, h.Reason)
	require.Equal(t, CausePostgres, h.Pipelines[0].Cause)
	release <- struct{}{}
	eventually(t, noticed, "and still without a tenure")

	require.NoError(t, server.Start(t.Context()))
	eventually(t, func() bool { return r.Health().Ready && !r.condition().Stuck }, "back")
}

func TestRetryBudgetIsInTheStats(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	require.Zero(t, r.Stats().Pipelines[0].RetryBudget, "no session")
	running(t, r)
	eventually(t, func() bool { return r.Stats().Pipelines[0].RetryBudget == retryBurst }, "a full one")
}
