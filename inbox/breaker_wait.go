package inbox

import (
	"context"
	"slices"
)

// gap is a message's place in a breaker's queue.
type gap struct {
	trial *trial
	over  chan struct{} // closed when its attempt has been granted
}

// admit grants attempts to those that wait, the longest first. In a closed
// breaker these are retries that wait for their budget.
func (b *breaker) admit() {
	for len(b.queue) > 0 && b.admits(b.queue[0].trial) {
		b.grant(b.queue[0].trial)
		close(b.queue[0].over)
		b.queue[0] = nil
		b.queue = b.queue[1:]
	}
}

// admitNew grants attempts to all that wait and are no retries.
func (b *breaker) admitNew() {
	b.queue = slices.DeleteFunc(b.queue, func(g *gap) bool {
		if b.isRetry(g.trial) {
			return false
		}
		b.grant(g.trial)
		close(g.over)
		return true
	})
}

// leave takes g out of the queue if it is still there.
func (b *breaker) leave(g *gap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.queue, g); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
	}
}

// await makes the lane ready again when its head's turn has come, or the head's
// context or stop ends.
func (l *lanes) await(ln *lane, g *gap, stop context.Context) {
	ctx := l.head(ln).ctx
	l.timers.Go(func() {
		select {
		case <-g.over:
		case <-ctx.Done():
		case <-stop.Done():
		}
		g.trial.breaker.leave(g)
		l.put(ln)
	})
}
