package model

import (
	"fmt"
	"slices"
)

// postgres is what a snapshot is made of, and what a crash may take back.
type postgres struct {
	next      uint64 // transaction id
	completed uint64 // highest that has ended
	durable   uint64 // highest that a crash does not take back
	seq       int64  // highest id drawn
	durableID int64
	slot      int
	token     int // of the incarnation
}

// writer is a service's transaction.
type writer struct {
	xid   uint64
	keys  map[string]bool // whose lock it holds
	id    int64           // drawn ahead, by mistake
	wrote bool
}

func (x *explorer) snapshot() Snapshot {
	s := Snapshot{Xmin: x.pg.completed + 1, Xmax: x.pg.completed + 1}
	for _, tx := range x.writers {
		if tx.xid != 0 && tx.xid < s.Xmax {
			s.Running = append(s.Running, tx.xid)
		}
		if tx.xid != 0 {
			s.Xmin = min(s.Xmin, tx.xid)
		}
	}
	slices.Sort(s.Running)
	return s
}

func (x *explorer) probe() Probe {
	p := Probe{S: x.snapshot(), H: x.pg.seq, B: x.pg.next}
	if x.is(xmaxForB) {
		p.B = p.S.Xmax
	}
	return p
}

func (x *explorer) assign() uint64 {
	x.pg.next++
	return x.pg.next - 1
}

func (x *explorer) ended(xid uint64, durable bool) {
	x.pg.completed = max(x.pg.completed, xid)
	if durable {
		x.pg.durable = max(x.pg.durable, xid)
	}
}

// writing is what services may do.
func (x *explorer) writing() (list []func()) {
	if x.quiet {
		return nil
	}
	if len(x.writers) < 3 && x.events < maxEvents {
		list = append(list, func() {
			tx := &writer{keys: map[string]bool{}}
			if x.is(idBeforeXid) {
				x.pg.seq++
				tx.id = x.pg.seq
			} else {
				tx.xid = x.assign()
			}
			x.writers = append(x.writers, tx)
		})
	}
	for _, tx := range x.writers {
		if x.events < maxEvents {
			list = append(list, func() { x.insert(tx) })
		}
		if tx.wrote {
			list = append(list, func() { x.commit(tx) }, func() {
				if x.chance(3) {
					x.abort(tx)
				}
			})
		}
	}
	return list
}

// insert writes an event if the key's lock is free.
func (x *explorer) insert(tx *writer) {
	k := x.choose(keyCount)
	key := keyName(k)
	for _, other := range x.writers {
		if other != tx && other.keys[key] || tx.id != 0 && tx.wrote {
			return
		}
	}
	id := tx.id
	if id == 0 {
		x.pg.seq++
		id = x.pg.seq
	} else {
		tx.xid = x.assign()
	}
	tx.keys[key], tx.wrote = true, true
	x.events++
	x.do(Insert{Event{Name: fmt.Sprintf("%s-%d", key, x.events), ID: id, Xid: tx.xid, Key: key, Shard: k % shardCount, Slot: x.pg.slot}})
}

func (x *explorer) commit(tx *writer) {
	x.do(Commit{tx.xid})
	x.ended(tx.xid, true)
	for _, rows := range x.shards {
		for _, e := range rows {
			if e.Xid == tx.xid {
				x.pg.durableID = max(x.pg.durableID, e.ID)
			}
		}
	}
	x.leave(tx)
}

func (x *explorer) abort(tx *writer) {
	x.do(Abort{tx.xid})
	x.ended(tx.xid, false)
	x.leave(tx)
}

func (x *explorer) leave(tx *writer) {
	x.writers = slices.DeleteFunc(x.writers, func(w *writer) bool { return w == tx })
}

// crash ends what runs, and may hand out transaction ids and event ids a second time.
func (x *explorer) crash() {
	for _, tx := range slices.Clone(x.writers) {
		x.abort(tx)
	}
	x.pg.next -= uint64(x.choose(int(x.pg.next - x.pg.durable)))
	x.pg.seq -= int64(x.choose(int(x.pg.seq - x.pg.durableID + 1)))
	x.pg.completed = x.pg.next - 1
	x.pg.token++
}

// statement is a relay's, on its way to the database.
type statement struct {
	from  *relay
	life  int
	token int
	run   func() bool // in the database; false = refused
	heard func(ok bool)
	done  bool // carried out
	parks bool // a session ends that does not hear of it
	ok    bool
}

// ask sends a statement; the relay sends no other one until it has heard of it.
func (x *explorer) ask(r *relay, run func() bool, heard func(ok bool)) {
	r.flushing = &statement{from: r, life: r.life, token: r.token, run: run, heard: heard}
	x.statements = append(x.statements, r.flushing)
}

func (x *explorer) carryOut(s *statement) {
	x.statements = slices.DeleteFunc(x.statements, func(o *statement) bool { return o == s })
	s.ok = (s.token == x.pg.token || x.is(noIncarnation)) && s.run()
	s.done = true
}

// fenced tells whether the lease is still the one that the statement names.
func (x *explorer) fenced(part Part, l Lease) bool {
	return x.leases[part] == l || x.is(noFence)
}

// retention is the database's side of truncation.
func (x *explorer) retention() (list []func()) {
	for slot := range slotCount {
		if slot != x.pg.slot && x.mayTruncate(slot) {
			list = append(list, func() { x.do(Truncate{slot}) })
		}
	}
	if next := (x.pg.slot + 1) % slotCount; len(x.inSlot(next, running)) == 0 && len(x.inSlot(next, committed)) == 0 {
		list = append(list, func() { x.pg.slot = next })
	}
	return list
}

// mayTruncate is the check under the slot's lock, which nobody gets while a writer's
// rows are in the slot: the newest transaction lies below every pipeline's lowest.
func (x *explorer) mayTruncate(slot int) bool {
	rows := x.inSlot(slot, committed)
	if len(rows) == 0 || len(x.inSlot(slot, running)) > 0 && !x.is(truncateWithoutLock) {
		return false
	}
	for part, p := range x.stored {
		low := p.At.S.Xmin
		switch {
		case x.is(truncateByOnePipeline) && part.Pipeline != pipelines[0]:
			continue
		case x.is(truncateByBatch) && p.To != nil:
			low = p.To.S.Xmin
		}
		for _, e := range rows {
			if e.Xid >= low {
				return false
			}
		}
	}
	return true
}

func (x *explorer) inSlot(slot int, how txState) (list []*logRow) {
	for _, rows := range x.shards {
		for _, e := range rows {
			if e.Slot == slot && e.tx == how && !e.truncated {
				list = append(list, e)
			}
		}
	}
	return list
}
