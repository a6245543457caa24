package inbox

import (
	"context"
	"slices"
	"sync"

	"github.com/outboxkit/outboxkit/brokers"
)

// budget bounds the messages in flight by number and bytes.
type budget struct {
	maxCount int
	maxBytes int64

	mu      sync.Mutex
	count   int
	bytes   int64
	waiters []*waiter // the longest first
}

// waiter is a message that waits for room.
type waiter struct {
	size    int64
	of      *quota
	granted chan struct{} // closed when it has room
}

// take waits for room for size bytes. It returns false if one of the contexts
// ended first.
func (b *budget) take(size int64, of *quota, a, c context.Context) bool {
	b.mu.Lock()
	if b.admit(size, of) {
		b.mu.Unlock()
		return true
	}
	w := &waiter{size, of, make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	select {
	case <-w.granted:
		return true
	case <-a.Done():
	case <-c.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiters, w)
	if i < 0 {
		return true // granted meanwhile
	}
	b.waiters = slices.Delete(b.waiters, i, i+1)
	return false
}

// admit takes room if there is enough, with mu held.
func (b *budget) admit(size int64, of *quota) bool {
	if !b.fits(size) || !b.leaves(size, of) {
		return false
	}
	b.count++
	b.bytes += size
	of.add(1, size)
	return true
}

// give gives back the room of tasks. It wakes those that have room now, not all
// that wait: there may be as many as there are partitions.
func (b *budget) give(tasks ...*task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range tasks {
		b.count--
		b.bytes -= t.size
		t.quota.add(-1, -t.size)
	}
	b.waiters = slices.DeleteFunc(b.waiters, func(w *waiter) bool {
		if !b.admit(w.size, w.of) {
			return false
		}
		close(w.granted)
		return true
	})
}

func (b *budget) fits(size int64) bool {
	return b.count == 0 || b.count < b.maxCount && b.bytes+size <= b.maxBytes
}

// size is what a message counts for in MaxInFlightBytes.
func size(m *brokers.Message) int64 {
	n := len(m.Payload) + len(m.Key)
	for name, value := range m.Headers {
		n += len(name) + len(value)
	}
	return int64(n)
}
