package relay

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// history checks the promises. Writers keep a counter per key, under its row lock,
// and write the counter's value as the event: whatever was rolled back is written
// again with the same value, so that the committed history of a key with counter n
// is exactly 1..n.
type history struct {
	mu   sync.Mutex
	keys map[string][]int // as published
}

func (h *history) add(msgs []brokers.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys == nil {
		h.keys = map[string][]int{}
	}
	for _, m := range msgs {
		n, _ := strconv.Atoi(string(m.Payload))
		h.keys[m.Key] = append(h.keys[m.Key], n)
	}
}

// violations compares with the committed counters. Exactly: no repeats either;
// otherwise first publications count.
func (h *history) violations(want map[string]int, exactly bool) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for key, n := range want {
		seen := map[int]bool{}
		next := 1
		for _, v := range h.keys[key] {
			switch {
			case seen[v] && exactly:
				list = append(list, fmt.Sprintf("%s: %d published again", key, v))
			case seen[v]:
			case v > next:
				list = append(list, fmt.Sprintf("%s: %d published before %d", key, v, next))
			}
			seen[v] = true
			for seen[next] {
				next++
			}
		}
		for v := 1; v <= n; v++ {
			if !seen[v] {
				list = append(list, fmt.Sprintf("%s: %d of %d lost", key, v, n))
			}
		}
		if len(seen) > n {
			list = append(list, fmt.Sprintf("%s: %d values published, %d committed", key, len(seen), n))
		}
	}
	return list
}

func (h *history) missing(want map[string]int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for key, w := range want {
		distinct := map[int]bool{}
		for _, v := range h.keys[key] {
			distinct[v] = true
		}
		n += max(w-len(distinct), 0)
	}
	return n
}

func TestViolationsAreFound(t *testing.T) {
	t.Parallel()
	want := map[string]int{"k": 3}
	for name, published := range map[string][]int{
		"lost": {1, 3}, "inverted": {1, 3, 2}, "doubled": {1, 2, 2, 3}, "rolled back": {1, 2, 3, 4},
	} {
		h := history{keys: map[string][]int{"k": published}}
		require.NotEmpty(t, h.violations(want, true), name)
	}
	h := history{keys: map[string][]int{"k": {1, 2, 1, 2, 3}}}
	require.Empty(t, h.violations(want, false), "a repeated suffix is allowed after a crash")
}

// load is what the writers of the property tests do.
type load struct {
	t    testing.TB
	db   *database
	seed uint64
	// unsafe writers may fail at any moment (the server is being crashed).
	crashing bool
	errs     atomic.Int64
	prepared atomic.Int64
}

func (db *database) counters(t testing.TB) {
	db.exec(t, `CREATE TABLE counter (key text PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (fillfactor = 50);
INSERT INTO counter SELECT p || g FROM unnest(ARRAY['long', 'prep', 'copy', 'bulk', 'key']) p, generate_series(0, 19) g;
INSERT INTO counter SELECT 'key' || g FROM generate_series(20, 199) g;
GRANT SELECT, UPDATE ON counter TO outbox_writer`)
}

func (db *database) want(t testing.TB) map[string]int {
	rows, err := db.admin.Query(context.Background(), `SELECT key, n FROM counter`)
	require.NoError(t, err)
	want := map[string]int{}
	var key string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error { want[key] = n; return nil })
	require.NoError(t, err)
	return want
}

// run has 16 writers at work for d and returns when all transactions have ended.
func (l *load) run(d time.Duration) {
	stop := time.Now().Add(d)
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(l.seed, uint64(w)))
			for i := 0; time.Now().Before(stop); i++ {
				if err := l.transaction(r, w, i); err != nil {
					l.errs.Add(1)
					if !l.crashing {
						l.t.Errorf("writer %d: %v", w, err)
						return
					}
					pause(r, 20*time.Millisecond)
				}
			}
		})
	}
	writers.Wait()
}

// pause is think time, not a wait for a condition.
func pause(r *rand.Rand, longest time.Duration) {
	<-time.After(time.Duration(r.Int64N(int64(longest))))
}

func (l *load) transaction(r *rand.Rand, writer, i int) error {
	ctx := context.Background()
	tx, err := l.db.writer.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if r.IntN(3) == 0 { // an xid that writes no event for a while, if any
		if _, err := tx.Exec(ctx, `SELECT pg_current_xact_id()`); err != nil {
			return err
		}
		pause(r, 4*time.Millisecond)
	}
	switch {
	case writer == 0: // seconds long
		if err := bump(ctx, tx, "long", r.IntN(10), 2); err != nil {
			return err
		}
		pause(r, 2*time.Second)
		err = bump(ctx, tx, "long", 10+r.IntN(10), 1)
	case writer <= 2:
		return l.prepare(ctx, tx, r, fmt.Sprintf("%d_%d_%d", l.seed, writer, i))
	case writer == 3:
		err = copyIn(ctx, tx, r)
	case writer == 4 && r.IntN(100) == 0: // big
		err = bump(ctx, tx, "bulk", r.IntN(20), 3000)
		pause(r, 300*time.Millisecond)
	default:
		err = l.ordinary(ctx, tx, r)
	}
	if err != nil {
		return err
	}
	if r.IntN(10) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// bump raises a key's counter by n and writes n events, in one statement each.
func bump(ctx context.Context, tx pgx.Tx, kind string, key, n int) error {
	var last int
	name := kind + strconv.Itoa(key)
	if err := tx.QueryRow(ctx, `UPDATE counter SET n = n + $2 WHERE key = $1 RETURNING n`, name, n).Scan(&last); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't', $1, 'test', '/test', convert_to(g::text, 'UTF8') FROM generate_series($2::int, $3::int) g`, name, last-n+1, last)
	return err
}

// ordinary writes a few keys in ascending order, some in savepoints that may be
// rolled back.
func (l *load) ordinary(ctx context.Context, tx pgx.Tx, r *rand.Rand) error {
	keys := []int{r.IntN(200), r.IntN(200), r.IntN(200)}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, key := range keys[:1+r.IntN(len(keys))] {
		inner := tx
		if r.IntN(4) == 0 {
			var err error
			if inner, err = tx.Begin(ctx); err != nil {
				return err
			}
		}
		if err := bump(ctx, inner, "key", key, 1+r.IntN(2)); err != nil {
			return err
		}
		if inner != tx {
			end := inner.Commit
			if r.IntN(2) == 0 {
				end = inner.Rollback
			}
			if err := end(ctx); err != nil {
				return err
			}
		}
		if r.IntN(4) == 0 {
			pause(r, 4*time.Millisecond)
		}
	}
	return nil
}

func copyIn(ctx context.Context, tx pgx.Tx, r *rand.Rand) error {
	key, n := "copy"+strconv.Itoa(r.IntN(20)), 1+r.IntN(120)
	var last int
	if err := tx.QueryRow(ctx, `UPDATE counter SET n = n + $2 WHERE key = $1 RETURNING n`, key, n).Scan(&last); err != nil {
		return err
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"outbox", "event"}, []string{"topic", "key", "type", "source", "payload"},
		pgx.CopyFromSlice(n, func(i int) ([]any, error) {
			return []any{"t", key, "test", "/test", []byte(strconv.Itoa(last - n + 1 + i))}, nil
		}))
	pause(r, 30*time.Millisecond)
	return err
}

// prepare ends a transaction in two phases, with other work in between.
func (l *load) prepare(ctx context.Context, tx pgx.Tx, r *rand.Rand, gid string) error {
	gid = l.gidPrefix() + gid
	if err := bump(ctx, tx, "prep", r.IntN(20), 3); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `PREPARE TRANSACTION '`+gid+`'`); err != nil && !l.crashing {
		return err // in a crash the answer may have been lost: end it all the same
	}
	_ = tx.Commit(ctx) // ends what pgx thinks is open
	pause(r, 600*time.Millisecond)
	verb := "COMMIT"
	if r.IntN(5) == 0 {
		verb = "ROLLBACK"
	}
	for {
		_, err := l.db.writer.Exec(ctx, verb+` PREPARED '`+gid+`'`)
		if err == nil || strings.Contains(err.Error(), "does not exist") {
			l.prepared.Add(1)
			return nil
		}
		if !l.crashing {
			return err
		}
		pause(r, 50*time.Millisecond)
	}
}

func (l *load) gidPrefix() string { return l.db.url[strings.LastIndex(l.db.url, "/")+1:] }

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
		r.tune.pageRows, r.tune.turnPages = rows, turn
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
