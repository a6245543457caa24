package inbox

import (
	"context"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// laneKey is what order is kept for. The topic is part of it: "1" among orders
// and "1" among users are different things.
type laneKey struct{ topic, key string }

// lane is the messages of one key that are in flight, the oldest first. A lane
// is in one place at a time: in lanes.ready, with a worker, or waiting for a
// retry; so its messages are handled one after the other.
type lane struct {
	key   laneKey
	tasks []*task
}

// lanes hands messages to workers, in order within a key. Lanes come and go with
// the messages in flight, so a key waits for itself alone, not for others that
// share a hash.
type lanes struct {
	room  *budget
	ready chan *lane // never full: no more lanes than messages in flight

	mu    sync.Mutex
	byKey map[laneKey]*lane // without unkeyed messages: each is a lane of its own

	inFlight sync.WaitGroup // messages taken and not settled
	timers   sync.WaitGroup // lanes waiting for a retry
}

func newLanes(maxCount int, maxBytes int64) *lanes {
	return &lanes{
		room:  &budget{maxCount: maxCount, maxBytes: maxBytes},
		ready: make(chan *lane, maxCount),
		byKey: map[laneKey]*lane{},
	}
}

// add puts t at the end of its lane.
func (l *lanes) add(t *task) {
	l.inFlight.Add(1)
	key := laneKey{t.d.Message.Topic, t.d.Message.Key}
	if key.key == "" {
		l.ready <- &lane{key: key, tasks: []*task{t}}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.byKey[key]; ln != nil {
		ln.tasks = append(ln.tasks, t)
		return
	}
	ln := &lane{key: key, tasks: []*task{t}}
	l.byKey[key] = ln
	l.ready <- ln
}

// head returns the message that a worker has to handle.
func (l *lanes) head(ln *lane) *task {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ln.tasks[0]
}

// done takes the settled head off and makes the lane ready if more wait in it.
func (l *lanes) done(ln *lane) {
	l.mu.Lock()
	t := ln.tasks[0]
	ln.tasks[0] = nil
	ln.tasks = ln.tasks[1:]
	if len(ln.tasks) > 0 {
		l.ready <- ln
	} else if l.byKey[ln.key] == ln {
		delete(l.byKey, ln.key)
	}
	l.mu.Unlock()
	l.room.give(t.size, t.quota)
	l.inFlight.Done()
}

// later makes the lane ready again after wait, or when its head's context or
// stop ends.
func (l *lanes) later(ln *lane, wait time.Duration, stop context.Context) {
	ctx := l.head(ln).ctx
	l.timers.Go(func() {
		pause(wait, ctx, stop)
		l.ready <- ln
	})
}

// pause waits, but not longer than any of the contexts lives.
func pause(wait time.Duration, a, b context.Context) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.Done():
	case <-b.Done():
	}
}

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
