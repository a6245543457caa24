package relay

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// Run's context ends when a statement is about to be sent, each kind of them in a
// life of its own, or when the publisher is called. Run returns promptly and without
// an error, and in the end nothing is lost or out of order.
func TestCancelledAtAnyStage(t *testing.T) {
	t.Parallel()
	stages := &stages{done: map[string]bool{}}
	run := newCutRun(t, &cutter{meet: stages.meet})
	run.pool = run.c.pool(t, run.db)
	answer := run.to.answer
	run.to.answer = func(ctx context.Context, call int, msgs []brokers.Message) []error {
		stages.meet("publish")
		return answer(ctx, call, msgs)
	}
	l := &load{t: t, db: run.db, seed: seed(t)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(t, 3*time.Second))
	}()
	lives, longest := 0, time.Duration(0)
	for {
		at, took := run.life(stages)
		if at == "" {
			break
		}
		require.Less(t, took, 5*time.Second, "Run returns after its context has ended at: %s", at)
		lives, longest = lives+1, max(longest, took)
		run.redrive()
	}
	<-written
	stages.arm(nil)
	stop := run.start()
	want := run.db.want(t)
	for deadline := time.Now().Add(patience); run.got.missing(want) > 0 && time.Now().Before(deadline); {
		run.redrive()
		<-time.After(tick)
	}
	require.NoError(t, stop())
	require.Empty(t, run.got.violations(want, false))
	t.Logf("%d lives, Run returned after %v at most", lives, longest)
	q := newQueries("outbox")
	for what, kind := range map[string]string{
		"publishing": "publish", "probing": q.probe, "flushing": q.flush, "parking": q.park, "resolving": q.promote,
		"loading": q.load, "taking": q.take, "a commit": "commit after " + q.park,
	} {
		require.True(t, stages.done[kind], "a context ends while %s", what)
	}
}

// life is one Run, which ends at a stage that none has ended at before. It returns
// that stage, or "" if there is none any more, and how long Run took to return.
func (run *cutRun) life(stages *stages) (at string, took time.Duration) {
	ctx, cancel := context.WithCancel(run.t.Context())
	defer cancel()
	r := run.relay()
	stages.arm(cancel)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	select {
	case <-ctx.Done():
		at = stages.at
	case <-time.After(3 * time.Second): // nothing new has come
		stages.arm(nil)
		cancel()
	}
	began := time.Now()
	require.NoError(run.t, <-done, "at %s", at)
	return at, time.Since(began)
}

// stages ends a context when something happens for the first time.
type stages struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil: not now
	done   map[string]bool
	at     string // what cancel was called at
}

func (s *stages) arm(cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel, s.at = cancel, ""
}

func (s *stages) meet(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil || s.done[what] {
		return
	}
	s.done[what], s.at = true, what
	s.cancel()
	s.cancel = nil
}
