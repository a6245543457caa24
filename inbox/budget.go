package inbox

import (
	"context"
	"sync"

	"github.com/outboxkit/outboxkit/brokers"
)

// budget bounds the messages in flight by number and bytes.
type budget struct {
	maxCount int
	maxBytes int64

	mu    sync.Mutex
	count int
	bytes int64
	freed chan struct{} // closed when room was given back; nil if nobody waits
}

// take waits for room for size bytes. It returns false if one of the contexts
// ended first.
func (b *budget) take(size int64, of *quota, a, c context.Context) bool {
	for {
		b.mu.Lock()
		if b.fits(size) && b.leaves(size, of) {
			b.count++
			b.bytes += size
			of.add(1, size)
			b.mu.Unlock()
			return true
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-a.Done():
			return false
		case <-c.Done():
			return false
		}
	}
}

func (b *budget) give(size int64, of *quota) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	b.bytes -= size
	of.add(-1, -size)
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
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
