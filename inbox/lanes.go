package inbox

import (
	"context"
	"sync"
	"time"
)

// laneKey is what order is kept for. The topic is part of it: "1" among orders
// and "1" among users are different things.
type laneKey struct{ topic, key string }

// lane is the messages of one key that are in flight, the oldest first. A lane
// is in one place at a time: in lanes.ready, with a worker, or waiting for a
// retry; so its messages are handled one after the other.
type lane struct {
	key   laneKey
	hash  int64 // see keyHash
	tasks []*task
	first [1]*task // room for one: most lanes never have more
}

// share is the first messages of a lane, taken by a worker.
type share struct {
	lane  *lane
	tasks []*task

	ended   bool // the one behind tasks cannot be with them
	settled int  // how many of tasks are
}

// lanes hands messages to workers, in order within a key. Lanes come and go with
// the messages in flight, so a key waits for itself alone, not for others that
// share a hash.
type lanes struct {
	room *budget
	// group says with which others a message may be taken at once: those of the
	// same group. nil: with none. It must not block.
	group func(*task) any

	mu     sync.Mutex
	wake   sync.Cond         // one more is ready, or no more will come
	ready  []*lane           // oldest first
	byKey  map[laneKey]*lane // without unkeyed messages: each is a lane of its own
	closed bool              // no more will come
	added  uint64            // so far

	inFlight sync.WaitGroup // messages taken and not settled
	timers   sync.WaitGroup // lanes waiting for a retry
}

func newLanes(maxCount int, maxBytes int64, group func(*task) any) *lanes {
	l := &lanes{
		room:  &budget{maxCount: maxCount, maxBytes: maxBytes},
		group: group, byKey: map[laneKey]*lane{},
	}
	l.wake.L = &l.mu
	return l
}

// add puts t at the end of its lane.
func (l *lanes) add(t *task) {
	l.inFlight.Add(1)
	key := laneKey{t.d.Message.Topic, t.d.Message.Key}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.added++
	t.number = l.added
	if ln := l.byKey[key]; ln != nil {
		t.hash = ln.hash
		ln.tasks = append(ln.tasks, t)
		return
	}
	t.hash = keyHash(&t.d.Message)
	ln := &lane{key: key, hash: t.hash, first: [1]*task{t}}
	ln.tasks = ln.first[:]
	if key.key != "" {
		l.byKey[key] = ln
	}
	l.push(ln)
}

// push makes a lane ready, with mu held.
func (l *lanes) push(ln *lane) {
	l.ready = append(l.ready, ln)
	l.wake.Signal()
}

// next waits for a ready lane and takes its head; if that has a group, then with
// all that waits of it, up to most messages: those behind it in its lane and in
// other ready lanes. It returns nil when no more will come. into is room for the
// result.
func (l *lanes) next(most int, into []share) (taken []share, group any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ready) == 0 {
		if l.closed {
			return nil, nil
		}
		l.wake.Wait()
	}
	group = l.group(l.ready[0].tasks[0])
	if group == nil {
		return append(into, l.takeFirst()), nil
	}
	rest := l.ready[:0]
	for i, ln := range l.ready {
		if most == 0 {
			rest = append(rest, l.ready[i:]...)
			break
		}
		n := 0
		for n < len(ln.tasks) && n < most && (i == 0 && n == 0 || l.group(ln.tasks[n]) == group) {
			n++
		}
		if n == 0 {
			rest = append(rest, ln)
			continue
		}
		into = append(into, share{lane: ln, tasks: ln.tasks[:n:n]})
		most -= n
	}
	clear(l.ready[len(rest):])
	l.ready = rest
	return into, group
}

// poll takes the head of the lane that is next, if there is one and it suits.
func (l *lanes) poll(suits func(*task) bool) (share, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ready) == 0 || !suits(l.ready[0].tasks[0]) {
		return share{}, false
	}
	return l.takeFirst(), true
}

func (l *lanes) takeFirst() share {
	ln := l.ready[0]
	l.ready[0] = nil
	l.ready = l.ready[1:]
	return share{lane: ln, tasks: ln.tasks[:1:1]}
}

// pop takes the settled head off a lane that a worker has.
func (l *lanes) pop(ln *lane) {
	l.mu.Lock()
	t := ln.tasks[0]
	ln.take(1)
	l.mu.Unlock()
	l.room.give(t)
	l.inFlight.Done()
}

// take forgets the first n.
func (ln *lane) take(n int) {
	clear(ln.tasks[:n])
	ln.tasks = ln.tasks[n:]
}

// put lets go of a lane: it is ready again if messages are left in it.
func (l *lanes) put(ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release(ln)
}

// release is put with mu held.
func (l *lanes) release(ln *lane) {
	if len(ln.tasks) > 0 {
		l.push(ln)
	} else if l.byKey[ln.key] == ln {
		delete(l.byKey, ln.key)
	}
}

// putAll takes what is settled off lanes that a worker has, and lets go of them.
func (l *lanes) putAll(taken []share) {
	settled := make([]*task, 0, len(taken))
	l.mu.Lock()
	for _, s := range taken {
		settled = append(settled, s.lane.tasks[:s.settled]...)
		s.lane.take(s.settled)
		l.release(s.lane)
	}
	l.mu.Unlock()
	l.room.give(settled...)
	l.inFlight.Add(-len(settled))
}

// later lets go of a lane after wait, or when its head's context or stop ends.
func (l *lanes) later(ln *lane, wait time.Duration, stop context.Context) {
	ctx := l.head(ln).ctx
	l.timers.Go(func() {
		pause(wait, ctx, stop)
		l.put(ln)
	})
}

// head returns the oldest message of a lane that a worker has.
func (l *lanes) head(ln *lane) *task {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ln.tasks[0]
}

// close ends the workers once nothing is ready.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake.Broadcast()
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
