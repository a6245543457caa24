package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// stubbornHandlers are those that have not returned though their contexts ended
// long ago. Nothing can end a goroutine from outside: its message's key waits for
// it, and Run says so at the end.
type stubbornHandlers struct {
	mu    sync.Mutex
	tasks map[*task]time.Time
}

func (s *stubbornHandlers) add(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks == nil {
		s.tasks = map[*task]time.Time{}
	}
	s.tasks[t] = time.Now()
}

func (s *stubbornHandlers) remove(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, t)
}

// err names those that are still running.
func (s *stubbornHandlers) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for t, since := range s.tasks {
		m := &t.d.Message
		errs = append(errs, fmt.Errorf("inbox: the handler of %q ignores its context: it was given up %s ago and still runs (event %q, key %q, %s): end the process",
			m.Type, time.Since(since).Round(time.Second), m.ID, m.Key, t.d.Origin))
	}
	return errors.Join(errs...)
}

// abandon lets go of a handler that does not return: its transaction is broken
// off, so that nothing it does there counts, its connection goes back to the
// pool, and the worker goes on with other keys. The message's own key waits until
// the handler returns: two at once would be worse.
func (r *runner) abandon(t *task, tx *transaction, returned <-chan struct{}) result {
	r.log.Error("inbox: a handler ignores its context: it has not returned since its time was up. Its key waits until it does, other keys go on; "+
		"a dump of goroutines (SIGQUIT, pprof) shows where it is", append(t.attrs(), "timeout", r.cfg.HandlerTimeout)...)
	r.stubborn.add(t)
	tx.breakOff(returned)
	over := make(chan struct{})
	go func() { // ends with the handler, which nobody can make end
		<-returned
		r.stubborn.remove(t)
		close(over)
	}()
	if t.ctx.Err() != nil {
		r.release(t)
		return result{what: settled}
	}
	res := r.failed(t, fmt.Errorf("%w after %s, and has not returned", errTimeout, r.cfg.HandlerTimeout))
	res.stubborn = over
	return res
}

// outlast makes the lane ready again when its head's handler has returned at
// last, or when the head is not ours any more.
func (l *lanes) outlast(ln *lane, over <-chan struct{}) {
	ctx := l.head(ln).ctx
	l.timers.Go(func() {
		select {
		case <-over:
		case <-ctx.Done():
		}
		l.put(ln)
	})
}

// breakOff ends a transaction that somebody else may be using: first the
// connection breaks, which ends a statement under way, then what is left is
// closed.
func (x *transaction) breakOff(returned <-chan struct{}) {
	x.finished = true
	_ = withGrace(time.Second, func(ctx context.Context) error {
		_ = x.conn.PgConn().CancelRequest(ctx)
		_ = x.conn.PgConn().Conn().Close()
		select {
		case <-returned:
		case <-ctx.Done():
		}
		return nil
	})
	if x.pgx != nil {
		x.pgx.leave()
	}
	_ = withGrace(frozenGrace, func(ctx context.Context) error { return x.finish(ctx, false) })
}
