package relay

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// rejecting refuses some events once: they are dead, and published after a redrive.
func rejecting(got *history) *recorder {
	var mu sync.Mutex
	refused := map[string]bool{}
	flaky := failing(func(m brokers.Message) error {
		mu.Lock()
		defer mu.Unlock()
		id := m.Key + " " + string(m.Payload)
		switch {
		case strings.HasPrefix(m.Key, "key1") && strings.HasSuffix(id, "5") && !refused[id]:
			refused[id] = true
			return errBad
		case strings.HasPrefix(m.Key, "key2") && rand.IntN(40) == 0, m.Key == "key2" && rand.IntN(2) == 0:
			return errTopic
		}
		return nil
	})
	return &recorder{answer: func(ctx context.Context, call int, msgs []brokers.Message) []error {
		results := flaky(ctx, call, msgs)
		var good []brokers.Message
		for i, err := range results {
			if err == nil {
				good = append(good, msgs[i])
			}
		}
		got.add(good)
		return results
	}}
}

// Two relays, one of which comes and goes, under writers, with parking, redriving
// and truncation: each of their statements loses its connection before it is sent
// and after it was carried out, those of redriving too; then any does, at random.
// Nothing is lost or published out of order, and the relays go on by themselves.
func TestConnectionLossAtAnyStatement(t *testing.T) {
	t.Parallel()
	c := &cutter{}
	run := newCutRun(t, c)
	c.judge = func(kind string, n int) fate {
		if run.late.Load() && rand.IntN(40) == 0 {
			return fate(1 + rand.IntN(2))
		}
		f := fate(n % 3) // every third passes, so that there is a next one
		if c.cuts[kind][f] < 3 {
			return f
		}
		return spared
	}
	run.until(func() []string { return c.lacking(newQueries("outbox"), unsent, unheard) })
}

// The same with connections on which no answer comes, ever, as when a network drops
// packets: each statement gives up by itself.
func TestSilentConnectionAtAnyStatement(t *testing.T) {
	t.Parallel()
	c := &cutter{}
	run := newCutRun(t, c)
	run.tune = func(r *Relay) { r.tune.opTimeout = 300 * time.Millisecond }
	c.judge = func(kind string, _ int) fate {
		if c.cuts[kind][silent] == 0 {
			return silent
		}
		return spared
	}
	run.until(func() []string { return c.lacking(newQueries("outbox"), silent) })
}

// cutRun is two relays at work on connections that a cutter breaks.
type cutRun struct {
	t    *testing.T
	db   *database
	c    *cutter
	pool *pgxpool.Pool
	got  history
	to   *recorder
	tune func(*Relay)
	late atomic.Bool // in the second half of the writing
}

func newCutRun(t *testing.T, c *cutter) *cutRun {
	run := &cutRun{t: t, c: c, tune: func(*Relay) {}}
	run.db = migrated(t, pgtest.Own(t).URL("postgres")) // others' transactions hold truncation back
	run.db.counters(t)
	run.to = rejecting(&run.got)
	return run
}

func (run *cutRun) start() (stop func() error) { return running(run.t, run.relay()) }

func (run *cutRun) relay() *Relay {
	cfg := config(run.to)
	cfg.Lease = time.Second
	cfg.Retention = 600 * time.Millisecond
	r := parkingRelay(run.t, run.db, cfg)
	r.pool = run.pool
	r.tune.pageRows, r.tune.pruneAfter, r.tune.retainTick = 500, 5, 30*time.Millisecond
	run.tune(r)
	return r
}

// redrive is what a person would do: again if it fails.
func (run *cutRun) redrive() {
	ctx, cancel := context.WithTimeout(run.t.Context(), 2*time.Second)
	defer cancel()
	_, _ = Redrive(ctx, run.pool, "", ParkedFilter{State: stateDead}, ParkedAction{By: "test", Reason: "test"})
}

// until runs writers for a while, and then until lacking is empty, and checks what
// was published.
func (run *cutRun) until(lacking func() []string) {
	t, length := run.t, duration(run.t, 5*time.Second)
	run.pool = run.c.pool(t, run.db)
	stop := run.start()
	l := &load{t: t, db: run.db, seed: seed(t)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(length)
	}()
	begin := time.Now()
	for writing := true; writing; {
		other := run.start()
		select {
		case <-written:
			writing = false
		case <-time.After(time.Duration(200+rand.IntN(400)) * time.Millisecond):
		}
		run.late.Store(time.Since(begin) > length/2)
		run.redrive()
		require.NoError(t, other())
	}
	run.late.Store(false)
	want := run.db.want(t)
	deadline := time.Now().Add(patience)
	for (run.got.missing(want) > 0 || len(lacking()) > 0) && time.Now().Before(deadline) {
		run.redrive()
		if run.got.missing(want) == 0 { // more occasions for what has not been cut yet
			run.occasion()
			want = run.db.want(t)
		}
		<-time.After(tick)
	}
	run.c.report(t)
	require.Empty(t, lacking(), "never cut")
	eventually(t, func() bool { return run.got.missing(want) == 0 }, "all published")
	require.NoError(t, stop())
	require.Empty(t, run.got.violations(want, false))
	run.c.mu.Lock()
	defer run.c.mu.Unlock()
	require.Empty(t, run.c.long, "statements without a timeout")
}

// occasion makes the relays do what they do seldom.
func (run *cutRun) occasion() {
	run.db.exec(run.t, `SELECT setval('outbox.event_id_seq', pg_sequence_last_value('outbox.event_id_seq') + 1000000)`) // a gap is skipped
	require.NoError(run.t, pgx.BeginFunc(run.t.Context(), run.db.writer, func(tx pgx.Tx) error {
		return bump(run.t.Context(), tx, "key", 2, 1) // fails often
	}))
	other := run.start()
	<-time.After(50 * time.Millisecond)
	require.NoError(run.t, other())
}
