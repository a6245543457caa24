package kafka

import (
	"context"
	"sync"

	"github.com/outboxkit/outboxkit/brokers"
)

// window tracks the deliveries of one partition within one session, in offset
// order, from the first one that is not settled.
type window struct {
	size    int
	mark    func(next int64) // everything below next is done
	restart func()           // a delivery was released

	mu        sync.Mutex
	entries   []entry // entries[0] is number first
	first     int64
	unsettled int
	released  int64 // lowest number that was released; -1 = none
	closed    bool
	roomy     chan struct{} // closed while there is room
	idle      chan struct{} // closed while nothing is unsettled
}

type entry struct {
	offset  int64
	settled bool
	done    bool // settled by Ack
}

func newWindow(size int, mark func(next int64), restart func()) *window {
	w := &window{
		size: size, mark: mark, restart: restart, released: -1,
		roomy: make(chan struct{}), idle: make(chan struct{}),
	}
	close(w.roomy)
	close(w.idle)
	return w
}

// add appends a delivery and returns what settles it.
func (w *window) add(offset int64) settler {
	w.mu.Lock()
	defer w.mu.Unlock()
	number := w.first + int64(len(w.entries))
	w.entries = append(w.entries, entry{offset: offset})
	if w.unsettled++; w.unsettled == 1 {
		w.idle = make(chan struct{})
	}
	if len(w.entries) == w.size {
		w.roomy = make(chan struct{})
	}
	return settler{w, number}
}

// room returns a channel that is closed when another delivery fits.
func (w *window) room() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.roomy
}

// wait returns when everything is settled, or when ctx ends.
func (w *window) wait(ctx context.Context) {
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// close makes every further Ack stale. No offset is marked after it.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// settle records the fate of a delivery.
func (w *window) settle(number int64, done bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return brokers.ErrStale
	}
	if number < w.first || w.entries[number-w.first].settled {
		return nil // settled before
	}
	e := &w.entries[number-w.first]
	e.settled, e.done = true, done
	if w.unsettled--; w.unsettled == 0 {
		close(w.idle)
	}
	if !done && (w.released < 0 || number < w.released) {
		w.released = number
		w.restart()
	}
	w.advance()
	if w.released >= 0 && number > w.released {
		return brokers.ErrStale // it comes again behind the released one
	}
	return nil
}

// advance moves the mark over what is done, with mu held.
func (w *window) advance() {
	n := 0
	for n < len(w.entries) && w.entries[n].done {
		n++
	}
	if n == 0 {
		return
	}
	w.mark(w.entries[n-1].offset + 1)
	if len(w.entries) >= w.size {
		close(w.roomy)
	}
	w.entries = w.entries[n:]
	w.first += int64(n)
}

// settler settles one delivery.
type settler struct {
	window *window
	number int64
}

// Ack implements brokers.Settler.
func (s settler) Ack() error { return s.window.settle(s.number, true) }

// Release implements brokers.Settler.
func (s settler) Release() { _ = s.window.settle(s.number, false) } // stale: it comes again anyway
