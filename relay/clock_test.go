package relay

import (
	"context"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// ownClock is a server of its own whose clock can be set.
func ownClock(t *testing.T) *postgres.Server {
	if runtime.GOOS != "linux" {
		t.Skip("a server's clock can be set on Linux only")
	}
	if err := postgres.ClockAvailable(); err != nil {
		skip(t, err.Error())
	}
	server, err := postgres.Start(t.Context(), postgres.Config{Clock: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		if log, err := os.ReadFile(server.Log()); err == nil && t.Failed() {
			t.Logf("end of the server's log:\n%s", log[max(0, len(log)-8000):])
		}
		require.NoError(t, server.Close(context.Background()))
	})
	return server
}

const clockJump = time.Hour

// The database's clock jumps by an hour, forwards and backwards, while two relays
// publish. Both hold their share again after about a lease. Nothing is lost, and first
// publications stay in order.
func TestDatabaseClockJumps(t *testing.T) {
	t.Parallel()
	server := ownClock(t)
	db := migrated(t, server.URL("postgres"))
	db.counters(t)
	const lease = 2 * time.Second
	rec := newRecord(t)
	start := func() *child { return startChildAt(t, db.relay.Config().ConnString(), rec.path, lease) }
	a, b := start(), start()
	db.shared(t, 32, 32)
	l := &load{t: t, db: db, seed: seed(t)}
	var writing sync.WaitGroup
	writing.Go(func() { l.run(duration(t, 8*time.Second)) })

	clock := func() time.Time { return scan[time.Time](t, db.admin, `SELECT clock_timestamp()`) }
	for _, ahead := range []time.Duration{clockJump, 0, -clockJump, 0} {
		before := clock()
		published := rec.published()
		require.NoError(t, server.SetClock(ahead))
		eventually(t, func() bool { return clock().Sub(before).Abs() > clockJump/2 }, "jumped")
		began := time.Now()
		eventually(t, func() bool { // both have noticed, or are new
			return scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance
WHERE abs(extract(epoch FROM clock_timestamp() - beat_at)) < $1`, lease.Seconds()) == 2
		}, "two live instances")
		db.shared(t, 32, 32)
		took := time.Since(began)
		eventually(t, func() bool { return rec.published() > published+100 }, "goes on")
		t.Logf("clock at %+v: shares are even after %v", ahead, took)
		require.Less(t, took, lease+2*time.Second)
	}
	writing.Wait()
	want := db.want(t)
	eventually(t, func() bool { return rec.missing(want) == 0 }, "all published")
	require.Empty(t, rec.violations(want, false))
	for _, c := range []*child{a, b} {
		c.signal(t, syscall.SIGTERM)
		require.NoError(t, c.cmd.Wait(), c.out.String())
	}
}

// A relay dies and then the database's clock is set back: its leases are not kept
// until the clock has caught up.
func TestTakeoverAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	server := ownClock(t)
	db := migrated(t, server.URL("postgres"))
	rec := newRecord(t)
	const lease = 2 * time.Second
	start := func() *child { return startChildAt(t, db.relay.Config().ConnString(), rec.path, lease) }
	a := start()
	db.shared(t, 64)
	a.signal(t, syscall.SIGKILL)
	_ = a.cmd.Wait()
	require.NoError(t, server.SetClock(-clockJump))
	db.write(t, "k", "1")
	began := time.Now()
	start()
	eventually(t, func() bool { return rec.published() == 1 }, "published")
	require.Less(t, time.Since(began), lease+2*time.Second)
}

// A parked event whose next attempt a clock set back has put off by an hour is
// tried all the same.
func TestParkedEventIsRetriedAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := parkingRelay(t, db, config(p))
	stop := running(t, r)
	eventually(t, r.caughtUp, "registered")
	require.NoError(t, stop())
	db.exec(t, `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks, next_attempt_at)
VALUES ('test', outbox.uuid_v7(), 't', 't', 'k', 'test', '/test', now(), 'x', 'retrying', true, clock_timestamp() + interval '1 hour')`)
	running(t, r)
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published")
}
