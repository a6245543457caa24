package relay

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// duration is how long a property test writes: OUTBOXKIT_PROPERTY_TIME, or def.
func duration(t testing.TB, def time.Duration) time.Duration {
	text := cmp.Or(os.Getenv("OUTBOXKIT_PROPERTY_TIME"), def.String())
	d, err := time.ParseDuration(text)
	require.NoError(t, err, "OUTBOXKIT_PROPERTY_TIME")
	return d
}

// seed is OUTBOXKIT_SEED, or a new one; it is printed.
func seed(t testing.TB) uint64 {
	s := rand.Uint64N(1_000_000)
	if text := os.Getenv("OUTBOXKIT_SEED"); text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "OUTBOXKIT_SEED")
	}
	t.Logf("OUTBOXKIT_SEED=%d", s)
	return s
}

// spread registers the pipeline with shards at different positions, which all
// mean that nothing has been passed: at the start, and in batches begun at
// different moments.
func (db *database) spread(t testing.TB, pipeline string) {
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ($1)`, pipeline)
	db.exec(t, `INSERT INTO outbox.lease (pipeline, shard) SELECT $1, g FROM generate_series(0, 63) g`, pipeline)
	r := &Relay{pool: db.admin, q: newQueries("outbox"), tune: defaultTuning()}
	for g := range 4 {
		token, err := r.incarnation(t.Context())
		require.NoError(t, err)
		pr, err := (&session{engine: &engine{r: r}, t: &tenure{token: token}}).probe(t.Context())
		require.NoError(t, err)
		db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b, s2, h2, b2)
SELECT $1, array_agg(g::smallint), '', '3:3:', 0, '3', $3::text::pg_snapshot, $4::bigint, $5::text::xid8
FROM generate_series(0, 63) g WHERE g % 4 = $2::int`, pipeline, g, pr.s.text, pr.h, fmt.Sprint(pr.b))
		db.write(t, "spread", strconv.Itoa(g+1)) // so that the next batch ends elsewhere
	}
}

// TestProperty: concurrent writers of every kind, small pages, shards at different
// positions, a broker that stalls, slots rotated and truncated, clean restarts.
// With a publisher that answers every call nothing is lost, doubled or inverted.
func TestProperty(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	got := property(t, db, duration(t, 12*time.Second), patience, func(*Relay) {})
	require.Empty(t, got.violations(db.propertyWant(t), true))
	kept := scan[int](t, db.admin, `SELECT count(*) FROM outbox.event`)
	total := 0
	for _, n := range db.propertyWant(t) {
		total += n
	}
	t.Logf("%d events, %d still in the log", total, kept)
	require.Less(t, kept, total, "slots were truncated meanwhile")
}

func (db *database) propertyWant(t testing.TB) map[string]int {
	want := db.want(t)
	want["spread"] = 4
	return want
}

// property runs writers and relay, and returns what was published. Tune may break
// the relay on purpose; grace is how long it may take to catch up.
func property(t testing.TB, db *database, d, grace time.Duration, tune func(*Relay)) *history {
	l := &load{t: t, db: db, seed: seed(t)}
	db.counters(t)
	db.spread(t, "test")
	got := &history{}
	var stalled atomic.Bool
	p := &recorder{answer: func(ctx context.Context, call int, msgs []brokers.Message) []error {
		for stalled.Load() && ctx.Err() == nil {
			<-time.After(time.Millisecond)
		}
		got.add(msgs)
		return make([]error, len(msgs))
	}}
	cfg := config(p)
	cfg.Retention = 600 * time.Millisecond
	start := func(rows, turn int) func() error {
		r := newRelay(t, db.relay, cfg)
		r.tune.pageRows, r.tune.turnPages, r.tune.split = rows, turn, 10
		r.tune.retainTick = 30 * time.Millisecond
		r.tune.pruneAfter = 20
		tune(r)
		return running(t, r)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(d)
	}()
	// Several lives, with pages of 7 to 500 rows; the broker stalls in between.
	stop := start(7, 1)
	for i, size := range []int{50, 20, 500} {
		<-time.After(d / 5)
		if i == 1 {
			stalled.Store(true)
			<-time.After(d / 6)
			stalled.Store(false)
		}
		require.NoError(t, stop())
		stop = start(size, 1+i)
	}
	<-done
	deadline := time.Now().Add(grace)
	want := db.want(t)
	for got.missing(want) > 0 && time.Now().Before(deadline) {
		<-time.After(20 * time.Millisecond)
	}
	require.NoError(t, stop())
	t.Logf("%d prepared transactions", l.prepared.Load())
	return got
}

// Clean restarts at any moment repeat nothing: no flush that was under way may
// come after the last one.
func TestCleanRestartsRepeatNothing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.counters(t)
	l := &load{t: t, db: db, seed: seed(t)}
	got := &history{}
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		got.add(msgs)
		return make([]error, len(msgs))
	}}
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(t, 3*time.Second))
	}()
	rnd := rand.New(rand.NewPCG(l.seed, 99))
	restart := func() func() error {
		r := newRelay(t, db.relay, config(p))
		r.tune.pageRows, r.tune.split = 20, 5
		r.tune.flushEvery = time.Millisecond
		return running(t, r)
	}
	lives := 0
	for writing := true; writing; lives++ {
		stop := restart()
		select {
		case <-written:
			writing = false
		case <-time.After(20*time.Millisecond + time.Duration(rnd.Int64N(int64(50*time.Millisecond)))):
		}
		require.NoError(t, stop())
	}
	want := db.want(t)
	t.Logf("%d lives", lives)
	stop := restart()
	for deadline := time.Now().Add(patience); got.missing(want) > 0 && time.Now().Before(deadline); {
		<-time.After(20 * time.Millisecond)
	}
	require.NoError(t, stop())
	require.Empty(t, got.violations(want, true))
}

// Negative control: with B := xmax(S) transactions that were running above the
// highest completed one are forgotten. If the property test does not notice, it
// proves nothing.
func TestPropertyNoticesWrongB(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	got := property(t, db, 3*time.Second, time.Second, func(r *Relay) {
		r.tune.retainTick = time.Hour
		r.q.probe = strings.Replace(r.q.probe, "THEN age(pg_snapshot_xmax(cur)::xid) END", "THEN 0 END", 1)
	})
	list := got.violations(db.propertyWant(t), true)
	t.Logf("%d violations", len(list))
	require.NotEmpty(t, list)
}
