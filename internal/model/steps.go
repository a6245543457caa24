package model

import "slices"

// Insert adds an event to a running transaction. The writer holds the key's lock.
type Insert struct{ Event }

// Commit ends a transaction; it is recorded before anybody can see it.
type Commit struct{ Xid uint64 }

// Abort ends a transaction, by its writer or by a crash of the database.
type Abort struct{ Xid uint64 }

func (s Insert) apply(w *World) {
	e := &logRow{Event: s.Event}
	for _, f := range w.keys[s.Key] {
		w.rule(s.Key == "" || f.ID < e.ID && (f.tx == committed || f.Xid == e.Xid), "%s is written while %s holds the key's lock", e.Name, f.Name)
	}
	w.log[e.Name] = e
	w.open[e.Xid] = append(w.open[e.Xid], e)
	w.keys[e.Key] = append(w.keys[e.Key], e)
	w.shards[e.Shard] = append(w.shards[e.Shard], e)
	for _, pipeline := range w.Pipelines {
		w.checkFound(Part{pipeline, e.Shard}, w.stored[Part{pipeline, e.Shard}], e)
	}
}

// checkFound is the rule of positions for an event whose transaction runs.
func (w *World) checkFound(part Part, p Position, e *logRow) {
	if w.rule(!p.Passed(e.Event), "position of %v passes %s (id %d, xid %d), which is not committed", part, e.Name, e.ID, e.Xid) {
		w.rule(p.Finds(e.Event), "%s (id %d, xid %d) slips past the position of %v", e.Name, e.ID, e.Xid, part)
	}
}

func (s Commit) apply(w *World) { w.end(s.Xid, committed) }
func (s Abort) apply(w *World)  { w.end(s.Xid, aborted) }

func (w *World) end(xid uint64, how txState) {
	for _, e := range w.open[xid] {
		if e.tx = how; how == aborted {
			same := func(r *logRow) bool { return r == e }
			w.keys[e.Key] = slices.DeleteFunc(w.keys[e.Key], same)
			w.shards[e.Shard] = slices.DeleteFunc(w.shards[e.Shard], same)
		}
	}
	delete(w.open, xid)
}

// Join makes an instance known: its leases count as long as it is there.
type Join struct{ Owner string }

// Gone removes an instance, which has left or has been silent for too long.
type Gone struct{ Owner string }

// Take makes a lease an instance's, which then looks for position and parked events.
type Take struct {
	Part

	Owner string
	Epoch int64
}

// Release makes a lease nobody's.
type Release struct {
	Part

	Owner string
}

func (s Join) apply(w *World) { w.instances[s.Owner] = true }
func (s Gone) apply(w *World) { delete(w.instances, s.Owner) }

func (s Take) apply(w *World) {
	old := w.leases[s.Part]
	w.rule(old.Owner == "" || !w.instances[old.Owner], "%s takes %v from %s, which is alive", s.Owner, s.Part, old.Owner)
	w.rule(s.Epoch == old.Epoch+1, "%s takes %v under epoch %d after %d", s.Owner, s.Part, s.Epoch, old.Epoch)
	w.rule(w.instances[s.Owner], "%s takes %v and is no instance", s.Owner, s.Part)
	w.leases[s.Part] = Lease{s.Owner, s.Epoch}
	w.holds[holder{relayOf(s.Owner), s.Part}] = &hold{Lease: w.leases[s.Part], base: w.stored[s.Part], confirmed: map[string]bool{}}
}

func (s Release) apply(w *World) {
	l := w.leases[s.Part]
	w.rule(l.Owner == s.Owner, "%s releases %v, which is %s's", s.Owner, s.Part, l.Owner)
	if h := w.holds[holder{relayOf(s.Owner), s.Part}]; h != nil {
		w.rule(h.open == 0, "%s releases %v while events of it are being published", s.Owner, s.Part)
	}
	l.Owner = ""
	w.leases[s.Part] = l
}

// Store appends a position. Of a recorded one only the owner is known (epoch 0). The
// first position of a part has no owner.
type Store struct {
	Pipeline string
	Shards   []int
	Owner    string
	Epoch    int64
	Position Position
}

func (s Store) apply(w *World) {
	if !slices.Contains(w.Pipelines, s.Pipeline) {
		w.Pipelines = append(w.Pipelines, s.Pipeline)
		w.out[s.Pipeline] = map[string]bool{}
	}
	for _, shard := range s.Shards {
		part := Part{s.Pipeline, shard}
		l := w.leases[part]
		known, h := w.stored[part], w.holds[holder{relayOf(s.Owner), part}]
		if s.Owner != "" || l.Epoch != 0 {
			w.rule(l.Owner == s.Owner && (s.Epoch == 0 || s.Epoch == l.Epoch), "%s stores a position of %v under epoch %d; the lease is %s's under %d", s.Owner, part, s.Epoch, l.Owner, l.Epoch)
		}
		for _, e := range w.shards[shard] {
			switch {
			case e.tx == running:
				w.checkFound(part, s.Position, e)
			case s.Position.Passed(e.Event):
				w.rule(known.Passed(e.Event) || h != nil && (h.base.Passed(e.Event) || h.confirmed[e.Name]) || w.row(s.Pipeline, e.Name) != nil,
					"position of %v passes %s (id %d), which %s has neither had confirmed nor parked", part, e.Name, e.ID, s.Owner)
			default:
				w.rule(s.Position.Finds(e.Event), "%s (id %d, xid %d) slips past the position of %v", e.Name, e.ID, e.Xid, part)
			}
		}
		w.stored[part] = s.Position
	}
}

// Truncate empties a slot of the log.
type Truncate struct{ Slot int }

func (s Truncate) apply(w *World) {
	for shard, rows := range w.shards {
		for _, e := range rows {
			if e.Slot != s.Slot || e.truncated {
				continue
			}
			e.truncated = true
			w.rule(e.tx == committed, "slot %d is truncated with %s, which is not committed", s.Slot, e.Name)
			for _, pipeline := range w.Pipelines {
				w.rule(w.stored[Part{pipeline, shard}].Passed(e.Event), "slot %d is truncated with %s, which %s has not passed", s.Slot, e.Name, pipeline)
			}
		}
	}
}
