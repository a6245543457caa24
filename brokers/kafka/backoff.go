package kafka

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the pause between attempts within one budget: short, because the
// caller has its own for longer outages.
type backoff struct{ next time.Duration }

const (
	backoffFirst = 20 * time.Millisecond
	backoffMax   = 500 * time.Millisecond
)

func newBackoff() *backoff { return &backoff{next: backoffFirst} }

// delay returns the next pause, between half and all of it at random.
func (b *backoff) delay() time.Duration {
	d := b.next
	b.next = min(2*b.next, backoffMax)
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, protects nothing
}

// sleep pauses; false if ctx or over ended first.
func (b *backoff) sleep(ctx context.Context, over <-chan struct{}) bool {
	t := time.NewTimer(b.delay())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-over:
	}
	return false
}
