package model

import (
	"fmt"
	"slices"
)

// explorer makes one schedule: who does what next is chosen step by step. Its parts
// are the algorithm as package relay has it, one method for each statement and for
// each moment at which something else may come in between; the world underneath
// judges what they do.
type explorer struct {
	*World

	choose  func(n int) int // 0 to n-1
	mistake mistake
	pg      postgres
	writers []*writer
	relays  []*relay
	wire    []*message
	// statements are on their way to the database; they are carried out even if the
	// relay that sent them is gone.
	statements []*statement
	events     int // written so far
	sent       int // calls so far
	parkedN    int64
	weather    int  // how often faults occur in this schedule, 0 to 3
	quiet      bool // no more faults, nothing new
}

const (
	shardCount = 2
	keyCount   = 3
	slotCount  = 3
	maxEvents  = 9
)

var pipelines = []string{"a", "b"}

func newExplorer(choose func(n int) int, m mistake) *explorer {
	x := &explorer{World: NewWorld(), choose: choose, mistake: m, pg: postgres{next: 3, completed: 2, durable: 2, token: 1}}
	for _, p := range pipelines {
		start := Position{At: Probe{S: Snapshot{Xmin: 3, Xmax: 3}, B: 3}}
		x.do(Store{Pipeline: p, Shards: []int{0, 1}, Position: start})
	}
	for i, p := range []string{"a", "a", "b"} {
		r := &relay{name: fmt.Sprintf("r%d", i), pipeline: p}
		x.relays = append(x.relays, r)
		x.join(r)
	}
	return x
}

func (x *explorer) do(s Step) { _ = x.Do(s) } // what it breaks is kept in Breaches

func (x *explorer) is(m mistake) bool { return x.mistake == m }

func (x *explorer) chance(n int) bool { return x.choose(n) == 0 }

// explore makes a schedule of n steps, and then lets all come to rest. It ends early
// with the first breach, or the first broken promise if rules do not count.
func (x *explorer) explore(n int, rulesCount bool) *Breach {
	bad := func() *Breach {
		for _, b := range x.Breaches {
			if b.Promise || rulesCount {
				return &b
			}
		}
		return nil
	}
	x.weather = x.choose(4)
	for range n {
		if list := x.enabled(); len(list) > 0 {
			list[x.choose(len(list))]()
		}
		if b := bad(); b != nil {
			return b
		}
	}
	if !x.settle() {
		x.promise(false, "it never comes to rest")
	}
	x.Quiet()
	return bad()
}

// enabled lists what may happen next: now something of this kind, now of that one.
func (x *explorer) enabled() (list []func()) {
	switch k := x.choose(20); {
	case k < 2:
		if x.choose(4) < x.weather {
			return x.faults()
		}
	case k < 5:
		return x.writing()
	case k < 6:
		return x.retention()
	case k < 12:
		return x.moving()
	}
	for _, r := range x.relays {
		list = append(list, x.work(r)...)
	}
	return list
}

// moving is what is on its way to the database or to the broker, or back.
func (x *explorer) moving() (list []func()) {
	for _, s := range x.statements {
		list = append(list, func() { x.carryOut(s) })
	}
	for _, m := range x.wire {
		switch {
		case m.arrivable():
			if !x.quiet && m.waiting && m.from.running(m.life) && x.chance(3) {
				list = append(list, func() { x.refuse(m) })
			}
			list = append(list, func() { x.arrive(m) })
		case !m.waiting || !m.from.running(m.life):
		case m.arrived:
			list = append(list, func() { x.answer(m, Confirmed) })
		case m.held():
			list = append(list, func() { x.answer(m, Lost) })
		}
	}
	return list
}

// faults of processes, network, broker and database, and what operators do.
func (x *explorer) faults() (list []func()) {
	add := func(f func()) { list = append(list, f) }
	for _, r := range x.relays {
		switch {
		case !r.up:
			if !x.instances[r.owner()] {
				add(func() { x.join(r) })
			} else {
				add(func() { x.do(Gone{r.owner()}) })
			}
			continue
		case r.frozen:
			add(func() { r.frozen = false })
		default:
			add(func() { r.frozen = true })
		}
		add(func() { r.up = false })
		if !r.late {
			// Its own clock has told it before, if it runs.
			add(func() { r.late = true; x.do(Gone{r.owner()}) })
		}
		if s := r.flushing; s != nil && !r.frozen {
			add(func() { // it waits no longer
				if r.flushing = nil; s.parks {
					x.again(r)
				}
			})
		}
	}
	for _, m := range x.wire {
		if m.waiting && m.from.running(m.life) {
			add(func() { x.answer(m, Lost) })
		}
		if !m.waiting && !m.arrived {
			add(func() { m.gone = true })
		}
	}
	for _, p := range pipelines {
		for _, row := range x.parkedIn(p) {
			if row.State == Dead {
				add(func() { x.redrive(p, row) })
			}
			if row.State != Discarded {
				add(func() { x.discard(p, row) })
			}
		}
	}
	add(x.crash)
	return list
}

// settle ends all transactions, heals everything and works until nothing is left to
// do. It tells whether that point was reached.
func (x *explorer) settle() bool {
	x.quiet = true
	for _, tx := range slices.Clone(x.writers) {
		x.commit(tx)
	}
	for _, r := range x.relays {
		if r.frozen = false; !r.up {
			x.do(Gone{r.owner()})
			x.join(r)
		}
	}
	for _, r := range x.relays {
		for _, wk := range r.shards {
			if wk != nil {
				wk.pages = 0
			}
		}
	}
	for range 2000 {
		list := x.moving()
		for _, r := range x.relays {
			list = append(list, x.work(r)...)
		}
		if len(list) == 0 {
			return true
		}
		list[x.choose(len(list))]()
	}
	return false
}
