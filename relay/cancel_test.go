package relay

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// Run's context ends while a statement is under way, each kind of them in a life of
// its own, or while the publisher works. Run returns promptly and without an error, and
// in the end nothing is lost or out of order.
func TestCancelledAtAnyStage(t *testing.T) {
	t.Parallel()
	db := migrated(t, pgtest.Own(t).URL("postgres")) // others' transactions hold truncation back
	db.counters(t)
	var (
		mu      sync.Mutex
		cancel  context.CancelFunc
		done    = map[string]bool{} // kinds that a context has ended at
		waiting = ""                // the kind that this life ended at
	)
	stage := func(kind string) {
		mu.Lock()
		defer mu.Unlock()
		if waiting == "" && !done[kind] {
			done[kind], waiting = true, kind
			cancel() // before the statement is sent
		}
	}
	c := &cutter{meet: stage}
	pool := c.pool(t, db)
	got := &history{}
	inner := rejecting(got)
	p := &recorder{answer: func(ctx context.Context, call int, msgs []brokers.Message) []error {
		stage("publish")
		return inner.answer(ctx, call, msgs)
	}}
	written := make(chan struct{})
	l := &load{t: t, db: db, seed: seed(t)}
	go func() {
		defer close(written)
		l.run(duration(t, 3*time.Second))
	}()
	life := func(ctx context.Context) error {
		cfg := config(p)
		cfg.Lease = time.Second
		cfg.Retention = 600 * time.Millisecond
		r := parkingRelay(t, db, cfg)
		r.pool = pool
		r.tune.pageRows, r.tune.pruneAfter, r.tune.retainTick = 500, 5, 20*time.Millisecond
		return r.Run(ctx)
	}
	redrive := func() {
		_, err := Redrive(t.Context(), db.relay, "", ParkedFilter{State: stateDead}, ParkedAction{By: "test", Reason: "test"})
		require.NoError(t, err)
	}
	var longest time.Duration
	lives := 0
	for {
		ctx, end := context.WithCancel(t.Context())
		mu.Lock()
		cancel, waiting = end, ""
		mu.Unlock()
		over := make(chan error, 1)
		go func() { over <- life(ctx) }()
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second): // nothing new is coming
			mu.Lock()
			waiting = "none"
			mu.Unlock()
			end()
			require.NoError(t, <-over)
		}
		began := time.Now()
		mu.Lock()
		at := waiting
		mu.Unlock()
		if at == "none" {
			break
		}
		lives++
		select {
		case err := <-over:
			require.NoError(t, err, "at %s", at)
			longest = max(longest, time.Since(began))
		case <-time.After(5 * time.Second):
			t.Fatalf("Run has not returned 5 s after its context ended at: %s", at)
		}
		redrive()
	}
	<-written
	want := db.want(t)
	ctx, end := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- life(ctx) }()
	deadline := time.Now().Add(patience)
	for got.missing(want) > 0 && time.Now().Before(deadline) {
		redrive()
		<-time.After(tick)
	}
	end()
	require.NoError(t, <-over)
	require.Empty(t, got.violations(want, false))
	t.Logf("%d lives, Run returned after %v at most", lives, longest)
	for what, kind := range map[string]string{
		"publish": "publish", "probe": sqlProbe, "page": "", "flush": sqlFlush, "park": sqlPark, "resolve": sqlPromote, "load": sqlLoad, "take": sqlTake,
	} {
		require.True(t, kind == "" || done[inSchema(kind, "outbox")], "never cancelled at %s", what)
	}
}
