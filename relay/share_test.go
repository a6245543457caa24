package relay

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// shares are the numbers of shards that live instances hold, ascending.
func (db *database) shares(t testing.TB) []int {
	rows, err := db.admin.Query(context.Background(), `SELECT count(*) FROM outbox.lease l JOIN outbox.instance i ON i.name = l.owner
WHERE i.expires_at > clock_timestamp() GROUP BY owner ORDER BY 1`)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	return list
}

func (db *database) shared(t testing.TB, want ...int) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, func() bool { return fmt.Sprint(db.shares(t)) == fmt.Sprint(want) }, "shares %v", want)
	return time.Since(began)
}

// Instances join and leave while writers write. Each newcomer has its share
// promptly, each leaver's shards are handed over at once, long before a lease
// could have run out, and nothing is lost, inverted or published twice.
func TestSharesAreFairAndHandedOverAtOnce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.counters(t)
	l := &load{t: t, db: db, seed: seed(t)}
	got := &history{}
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		got.add(msgs)
		return make([]error, len(msgs))
	}}
	join := func() func() error {
		r := newRelay(t, poolAs(t, db.url, "outbox_relay", 4), config(p))
		r.tune.pageRows, r.tune.split = 50, 10
		return running(t, r)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(t, 4*time.Second))
	}()
	const prompt = 5 * time.Second // the lease is 15 s
	a := join()
	db.shared(t, 64)
	b := join()
	took := []time.Duration{db.shared(t, 32, 32)}
	c := join()
	took = append(took, db.shared(t, 21, 21, 22))
	require.NoError(t, a())
	took = append(took, db.shared(t, 32, 32))
	d := join()
	took = append(took, db.shared(t, 21, 21, 22))
	require.NoError(t, b())
	require.NoError(t, c())
	took = append(took, db.shared(t, 64))
	for _, took := range took {
		require.Less(t, took, prompt)
	}
	<-written
	want := db.want(t)
	eventually(t, func() bool { return got.missing(want) == 0 }, "all published")
	require.NoError(t, d())
	require.Empty(t, got.violations(want, true))
	t.Logf("shares reached after %v", took)
}

// A shard is not handed over while anything of it is in flight, and then with its
// position: nothing is published twice.
func TestHandoverWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 200 {
		db.write(t, fmt.Sprint("k", i), "1")
	}
	blocked, release := make(chan struct{}), make(chan struct{})
	unblock := sync.OnceFunc(func() { close(release) })
	a := &recorder{answer: func(_ context.Context, call int, msgs []brokers.Message) []error {
		if call == 0 {
			close(blocked)
			<-release
		}
		<-time.After(20 * time.Millisecond) // pages behind it are in flight when shards leave
		return make([]error, len(msgs))
	}}
	r := newRelay(t, db.relay, config(a))
	r.tune.pageRows = 5
	running(t, r)
	t.Cleanup(unblock)
	<-blocked
	b := &recorder{}
	running(t, newRelay(t, db.relay, config(b)))
	eventually(t, func() bool { return scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance`) == 2 }, "joined")
	pgtest.Never(t, func() bool { return len(db.shares(t)) > 1 }, 300*time.Millisecond, tick)
	unblock()
	db.shared(t, 32, 32)
	for i := range 200 {
		db.write(t, fmt.Sprint("k", i), "2")
	}
	sent := func() []brokers.Message { return append(a.messages(), b.messages()...) }
	eventually(t, func() bool {
		return r.caughtUp() && len(sent()) >= 400
	}, "published")
	ids := map[string]bool{}
	for _, m := range sent() {
		require.False(t, ids[m.ID], "published twice")
		ids[m.ID] = true
	}
}

// A probe that began before shards were taken over says nothing about them: their
// positions are newer.
func TestProbeBeginsAfterTheLoad(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	stop := running(t, newRelay(t, db.relay, config(p)))
	slow := newRelay(t, poolAs(t, db.url, "outbox_relay", 4), config(p))
	slow.q.probe += ", pg_sleep(0.2)"
	running(t, slow)
	db.shared(t, 32, 32)
	eventually(t, func() bool { return slow.Stats().Pipelines[0].CaughtUp }, "probes")
	written := 0
	for began := time.Now(); time.Since(began) < 500*time.Millisecond; written++ {
		db.write(t, fmt.Sprint("k", written), "1")
	}
	require.NoError(t, stop())
	db.shared(t, 64)
	db.write(t, "last", "last")
	eventually(t, func() bool { return slices.Contains(p.payloads(), "last") && slow.caughtUp() }, "published")
	require.Equal(t, written+1, len(p.messages()), "nothing twice") //nolint:testifylint // Len prints all
}

// A pipeline's shards are shared by those who run that pipeline.
func TestSharesArePerPipeline(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	both := Config{Pipelines: []Pipeline{{Name: "x", To: &recorder{}}, {Name: "y", To: &recorder{}}}}
	running(t, newRelay(t, db.relay, both))
	one := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "x", To: &recorder{}}}})
	running(t, one)
	eventually(t, func() bool {
		return scan[string](t, db.admin, `SELECT coalesce(string_agg(pipeline || n, ' ' ORDER BY pipeline, n), '') FROM
(SELECT pipeline, count(*) n FROM outbox.lease WHERE owner <> '' GROUP BY pipeline, owner) l`) == "x32 x32 y64"
	}, "shares")
	eventually(t, func() bool { return one.Stats().Pipelines[0].Shards == 32 }, "stats")
}

// A live owner keeps its leases whoever wants them; a dead one's are free.
func TestNothingIsTakenFromALiveOwner(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	owner := byHand(t, newRelay(t, db.relay, config(&recorder{})))
	other := newRelay(t, db.relay, config(&recorder{}))
	tn, err := other.begin(t.Context())
	require.NoError(t, err)
	defer tn.end(nil)
	s := &session{engine: other.engines[0], t: tn, progress: newProgress()}
	epochs, err := s.take(t.Context(), shardCount)
	require.NoError(t, err)
	require.Empty(t, epochs)
	require.NoError(t, s.release(t.Context(), map[int16]int64{0: 1}), "and not released by others")
	require.Equal(t, []int{64}, db.shares(t))

	db.exec(t, `UPDATE outbox.instance SET expires_at = clock_timestamp() WHERE name = $1`, owner.t.name)
	epochs, err = s.take(t.Context(), 5)
	require.NoError(t, err)
	require.Len(t, epochs, 5)
	for _, epoch := range epochs {
		require.EqualValues(t, 2, epoch)
	}
}

// A release that the server runs late does not meet leases that the instance has
// taken again since.
func TestLateReleaseIsRefused(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := byHand(t, newRelay(t, db.relay, config(&recorder{})))
	require.NoError(t, s.release(t.Context(), map[int16]int64{7: 1, 8: 1}))
	require.Equal(t, []int{62}, db.shares(t))
	epochs, err := s.take(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, map[int16]int64{7: 2}, epochs)
	require.NoError(t, s.release(t.Context(), map[int16]int64{7: 1, 8: 1}))
	require.Equal(t, []int{63}, db.shares(t))
}

// A process that is frozen in the middle of a takeover does not keep others from
// the leases that it has locked.
func TestFrozenTakeoverLetsGo(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	cfg := config(&recorder{})
	cfg.Lease = time.Second
	frozen := newRelay(t, db.relay, cfg)
	require.NoError(t, frozen.engines[0].register(t.Context(), nil))
	locked, wake := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- inTx(context.Background(), frozen, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, frozen.q.lockFree, "test")
			close(locked)
			<-wake
			return err
		})
	}()
	<-locked
	running(t, newRelay(t, db.relay, config(&recorder{})))
	db.shared(t, 64)
	close(wake)
	require.Error(t, <-done)
}

// A shard whose events cannot be published here does not stay for ever with an
// instance that has too many: after the time of a lease others may try.
func TestStuckShardsAreGivenUp(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	cut := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		for i := range results {
			results[i] = errAway
		}
		return results
	}}
	cfg := config(cut)
	cfg.Lease, cfg.DrainTimeout = time.Second, time.Second
	running(t, newRelay(t, db.relay, cfg))
	db.shared(t, 64)
	for i := range 200 {
		db.write(t, fmt.Sprint("k", i), "1")
	}
	eventually(t, func() bool { cut.mu.Lock(); defer cut.mu.Unlock(); return cut.calls > 0 }, "tried")
	p := &recorder{}
	running(t, newRelay(t, db.relay, config(p)))
	db.shared(t, 32, 32)
	mine := scan[int](t, db.admin, `SELECT count(*) FROM outbox.event e JOIN outbox.lease l ON l.shard = outbox.shard(e.key, e.event_id) JOIN outbox.instance i ON i.name = l.owner
WHERE i.started_at = (SELECT max(started_at) FROM outbox.instance)`)
	require.Positive(t, mine)
	eventually(t, func() bool { return len(p.messages()) >= mine }, "published elsewhere")
}
