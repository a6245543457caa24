package model

import (
	"cmp"
	"fmt"
	"slices"
)

// relay is an instance's session with one pipeline.
type relay struct {
	name     string
	pipeline string
	life     int
	up       bool
	frozen   bool
	late     bool // its lease has ended, by its own clock too
	token    int
	shards   [shardCount]*work // nil = not held
	flushing *statement        // about positions, on its way
	turn     *turn             // parked events that are being published
}

// work is a shard that is held.
type work struct {
	Part

	lease    Lease
	at       Position // published
	read     Position // read, ahead of at
	queue    []*entry // between the two, in the order of the log
	suspects map[string]bool
	pages    int // read
}

// entry is an event on its way, or nothing but a step of the position.
type entry struct {
	event *logRow
	state entryState
	to    Position // when all up to here is resolved
}

type entryState int

const (
	waiting entryState = iota
	inFlight
	published
	toPark
)

func (r *relay) owner() string { return fmt.Sprintf("%s/%d", r.name, r.life) }

func (r *relay) running(life int) bool { return r.up && !r.frozen && !r.late && r.life == life }

// join begins a life. Whatever was remembered is gone.
func (x *explorer) join(r *relay) {
	*r = relay{name: r.name, pipeline: r.pipeline, life: r.life + 1, up: true, token: x.pg.token}
	x.do(Join{r.owner()})
}

// again ends a life in good order, as far as that is possible.
func (x *explorer) again(r *relay) {
	x.do(Gone{r.owner()})
	x.join(r)
}

// work lists what a relay may do next.
func (x *explorer) work(r *relay) (list []func()) {
	switch {
	case !r.up || r.frozen:
		return nil
	case r.late && (!x.is(publishAfterLease) || x.quiet), r.token != x.pg.token && !x.is(noIncarnation):
		return []func(){func() { x.again(r) }}
	}
	if s := r.flushing; s != nil && s.done {
		list = append(list, func() { r.flushing = nil; s.heard(s.ok) })
	}
	for shard, wk := range r.shards {
		part := Part{r.pipeline, shard}
		if wk == nil {
			if l := x.leases[part]; !r.late && (l.Owner == "" || !x.instances[l.Owner] || x.is(takeFromTheLiving)) && l.Owner != r.owner() {
				list = append(list, func() { x.take(r, part) })
			}
			continue
		}
		list = append(list, x.workOn(r, wk)...)
		if !x.quiet && x.mayRelease(r, wk) && x.chance(5) {
			list = append(list, func() { x.release(r, wk) })
		}
	}
	if r.turn != nil {
		return append(list, x.inTurn(r)...)
	}
	for _, row := range x.heads(r) {
		list = append(list, func() { x.beginTurn(r, row) })
	}
	return list
}

func (x *explorer) workOn(r *relay, wk *work) (list []func()) {
	if len(wk.queue) < 5 && (!x.quiet || len(x.unread(wk)) > 0 && wk.pages < 50) {
		list = append(list, func() { x.page(wk) })
	}
	for _, e := range x.sendable(wk) {
		list = append(list, func() { x.send(r, wk, e) })
	}
	if r.flushing == nil {
		if n := parkable(wk); n > 0 {
			list = append(list, func() { x.park(r, wk, n) })
		}
		if !samePosition(wk.at, x.stored[wk.Part]) {
			list = append(list, func() { x.flush(r, wk) })
		}
	}
	return list
}

// unread are events that the reader has yet to come upon.
func (x *explorer) unread(wk *work) (list []*logRow) {
	for _, e := range x.World.shards[wk.Shard] {
		if e.tx == committed && !e.truncated && !wk.read.Passed(e.Event) {
			list = append(list, e)
		}
	}
	return list
}

// take raises a lease's epoch and then loads position and parked keys.
func (x *explorer) take(r *relay, part Part) {
	l := Lease{r.owner(), x.leases[part].Epoch + 1}
	x.do(Take{part, l.Owner, l.Epoch})
	at := x.stored[part]
	wk := &work{Part: part, lease: l, at: at, read: at, suspects: map[string]bool{}}
	if !x.is(forgetParked) {
		for _, row := range x.parkedIn(part.Pipeline) {
			wk.suspects[x.keyOf(row.Name)] = true
		}
	}
	r.shards[part.Shard] = wk
}

// mayRelease: what is in flight is resolved, and the position is stored.
func (x *explorer) mayRelease(r *relay, wk *work) bool {
	return (len(wk.queue) == 0 || x.is(releaseInFlight)) && r.turn == nil && r.flushing == nil && samePosition(wk.at, x.stored[wk.Part])
}

func (x *explorer) release(r *relay, wk *work) {
	r.shards[wk.Shard] = nil
	if x.leases[wk.Part] == wk.lease {
		x.do(Release{wk.Part, r.owner()})
	}
}

func samePosition(a, b Position) bool {
	same := func(p, q Probe) bool {
		return p.H == q.H && p.B == q.B && p.S.Xmax == q.S.Xmax && slices.Equal(p.S.Running, q.S.Running)
	}
	return same(a.At, b.At) && a.C == b.C && (a.To == b.To || a.To != nil && b.To != nil && same(*a.To, *b.To))
}

// page reads the next one or two events: late ones first, then new ones.
func (x *explorer) page(wk *work) {
	from := wk.read
	wk.pages++
	if from.To == nil {
		p := x.probe()
		from.To, from.C = &p, 0
	}
	limit := 1 + x.choose(2)
	if from.C < from.At.H {
		late := x.rows(wk, func(e *logRow) bool {
			return e.ID <= from.At.H && e.ID > from.C && from.At.pending(e.Xid) && from.To.S.Sees(e.Xid) && !x.is(noLateRows)
		})
		if len(late) > 0 {
			short := from
			short.C = from.At.H
			x.hand(wk, from, late, limit, short)
			return
		}
		from.C = from.At.H
	}
	fresh := x.rows(wk, func(e *logRow) bool {
		return e.ID > from.C && e.ID <= from.To.H && (from.To.S.Sees(e.Xid) || x.is(dirtyRead))
	})
	end := Position{At: *from.To}
	if x.is(endBatchEarly) {
		limit, fresh = len(fresh)+1, fresh[:min(limit, len(fresh))]
	}
	x.hand(wk, from, fresh, limit, end)
}

// hand queues a page of events. A short one leads to the position short.
func (x *explorer) hand(wk *work, from Position, found []*logRow, limit int, short Position) {
	page := found[:min(limit, len(found))]
	for _, e := range page {
		from.C = e.ID
		wk.queue = append(wk.queue, &entry{event: e, to: from})
	}
	if len(page) < limit {
		from = short
		wk.queue = append(wk.queue, &entry{state: published, to: from})
	}
	wk.read = from
	x.advance(wk)
}

// rows are those that a statement finds, in the order of their ids.
func (x *explorer) rows(wk *work, want func(e *logRow) bool) (list []*logRow) {
	for _, e := range x.World.shards[wk.Shard] {
		if !e.truncated && (e.tx == committed || x.is(dirtyRead)) && want(e) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *logRow) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// advance moves the position over what is resolved.
func (x *explorer) advance(wk *work) {
	for len(wk.queue) > 0 && (wk.queue[0].state == published || wk.queue[0].state == inFlight && x.is(positionBeforeConfirm)) {
		wk.at = wk.queue[0].to
		wk.queue = wk.queue[1:]
	}
}

// flush sends a position to the database.
func (x *explorer) flush(r *relay, wk *work) {
	s := Store{r.pipeline, []int{wk.Shard}, r.owner(), wk.lease.Epoch, wk.at}
	x.ask(r, func() bool {
		if !x.fenced(wk.Part, wk.lease) {
			return false
		}
		x.store(s)
		return true
	}, func(ok bool) { x.lost(r, wk, ok) })
}

// store writes a row, in a transaction with an id of its own.
func (x *explorer) store(s Store, with ...Step) {
	x.ended(x.assign(), true)
	x.pg.durableID = max(x.pg.durableID, min(s.Position.At.H, x.pg.seq))
	if s.Position.To != nil {
		x.pg.durableID = max(x.pg.durableID, min(s.Position.To.H, x.pg.seq))
	}
	x.do(Tx(append(with, s)))
}

func (x *explorer) lost(r *relay, wk *work, ok bool) {
	if !ok && r.shards[wk.Shard] == wk {
		r.shards[wk.Shard] = nil
	}
}
