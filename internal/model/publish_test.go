package model

import "slices"

// message is an event on its way to the broker.
type message struct {
	call    int
	from    *relay
	life    int
	name    string
	after   *message     // of the same key in the same call
	learn   func(Result) // what the relay makes of the answer
	waiting bool         // for the answer
	arrived bool
	refused bool
	gone    bool
}

func (m *message) arrivable() bool {
	return !m.arrived && !m.refused && !m.gone && (m.after == nil || m.after.arrived)
}

// held: what was before it in the call has failed.
func (m *message) held() bool {
	return m.after != nil && (m.after.refused || m.after.gone || !m.after.arrived && !m.after.waiting) || m.gone
}

func (x *explorer) arrive(m *message) {
	m.arrived = true
	x.do(Arrive{m.call, m.name})
	x.sweep()
}

func (x *explorer) refuse(m *message) {
	m.refused = true
	x.answer(m, Refused)
}

func (x *explorer) answer(m *message, result Result) {
	m.waiting = false
	x.do(Answer{m.call, m.name, result})
	if result == Lost && x.is(lostIsConfirmed) {
		result = Confirmed
	}
	m.learn(result)
	x.sweep()
}

// sweep forgets what nothing will be heard of any more.
func (x *explorer) sweep() {
	x.wire = slices.DeleteFunc(x.wire, func(m *message) bool {
		return (m.arrived || m.refused || m.gone) && (!m.waiting || !m.from.up || m.from.life != m.life)
	})
}

// publish hands one or two events of a key to the broker.
func (x *explorer) publish(r *relay, names []string, learn func(name string, result Result)) {
	x.sent++
	x.do(Send{x.sent, r.pipeline, r.name, names})
	var before *message
	for _, name := range names {
		m := &message{call: x.sent, from: r, life: r.life, name: name, after: before, waiting: true}
		m.learn = func(result Result) { learn(name, result) }
		x.wire = append(x.wire, m)
		before = m
	}
}

// sendable are entries whose earlier ones of the same key are resolved. Those behind
// an event that is to be parked, or is parked, are to be parked themselves.
func (x *explorer) sendable(wk *work) (list []*entry) {
	held, parked := map[string]bool{}, map[string]bool{}
	for _, e := range wk.queue {
		if e.event == nil {
			continue
		}
		key := e.event.Key
		behind := parked[key] || wk.suspects[key] && len(x.lane(lane{wk.Pipeline, key})) > 0
		switch {
		case e.state == waiting && !held[key] && behind && !x.is(passParked):
			e.state = toPark
		case e.state == waiting && (!held[key] || x.is(keyNotHeld)):
			list = append(list, e)
		}
		parked[key] = parked[key] || e.state == toPark
		held[key] = held[key] || e.state == waiting || e.state == inFlight
	}
	return list
}

func (x *explorer) send(r *relay, wk *work, first *entry) {
	batch := []*entry{first}
	for _, e := range wk.queue[slices.Index(wk.queue, first)+1:] {
		if e.event != nil && e.event.Key == first.event.Key {
			if e.state == waiting && x.chance(2) {
				batch = append(batch, e)
			}
			break
		}
	}
	var names []string
	for _, e := range batch {
		e.state = inFlight
		names = append(names, e.event.Name)
	}
	x.publish(r, names, func(name string, result Result) {
		for _, e := range batch {
			if e.event.Name != name {
				continue
			}
			switch result {
			case Confirmed:
				e.state = published
			case Refused:
				e.state = toPark
			case Lost:
				e.state = waiting
			}
		}
		x.advance(wk)
	})
	x.advance(wk)
}

// parkable is the number of entries up to the last one that is to be parked, if all
// up to there are resolved.
func parkable(wk *work) (n int) {
	for i, e := range wk.queue {
		switch e.state {
		case toPark:
			n = i + 1
		case waiting, inFlight:
			return n
		}
	}
	return n
}

// park stores events that could not be published together with the position past
// them.
func (x *explorer) park(r *relay, wk *work, n int) {
	entries := slices.Clone(wk.queue[:n])
	dead := x.chance(2)
	for _, e := range entries {
		if e.state == toPark {
			wk.suspects[e.event.Key] = true // before, whatever becomes of the transaction
		}
	}
	s := Store{r.pipeline, []int{wk.Shard}, r.owner(), wk.lease.Epoch, entries[n-1].to}
	x.ask(r, func() bool {
		if !x.fenced(wk.Part, wk.lease) {
			return false
		}
		copies := x.copies(wk, entries, dead)
		if x.is(parkApart) { // in a second transaction, which a crash prevents
			x.store(s)
			if x.chance(2) {
				x.do(Tx(copies))
			}
			return true
		}
		x.store(s, copies...)
		return true
	}, func(ok bool) {
		if ok && len(wk.queue) >= n && wk.queue[n-1] == entries[n-1] {
			wk.queue, wk.at = wk.queue[n:], entries[n-1].to
			x.advance(wk)
		}
		x.lost(r, wk, ok)
	})
	r.flushing.parks = true
}

// copies are the rows of a park: the first of a lane is tried again or dead, the
// others are blocked. What is parked already stays as it is.
func (x *explorer) copies(wk *work, entries []*entry, dead bool) (steps []Step) {
	lanes := map[string]bool{}
	for _, e := range entries {
		if e.state != toPark {
			continue
		}
		if row := x.row(wk.Pipeline, e.event.Name); row != nil && row.State != Discarded {
			continue
		}
		state, key := Retrying, e.event.Key
		switch {
		case lanes[key] || len(x.lane(lane{wk.Pipeline, key})) > 0:
			state = Blocked
		case dead:
			state = Dead
		}
		lanes[key] = true
		x.parkedN++
		steps = append(steps, Park{wk.Pipeline, x.parkedN, e.event.Name, state})
	}
	return steps
}
