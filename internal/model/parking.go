package model

import "slices"

// State of a parked event.
type State string

// States. A lane is the parked events of a key that are not discarded; the first
// is retrying or dead, the others wait behind it.
const (
	Retrying  State = "retrying"
	Blocked   State = "blocked"
	Dead      State = "dead"
	Discarded State = "discarded"
)

// ParkedRow is a parked event: a copy, the log's row may be truncated.
type ParkedRow struct {
	N          int64
	Name       string
	State      State
	Claim      int64 // the epoch under which it is being published; 0 = it is not
	Unanswered bool  // it may have been published
}

// Park adds an event, in the transaction of the position that passes it.
type Park struct {
	Pipeline string
	N        int64
	Name     string
	State    State
}

// Change is a claim, a failed attempt, a turn, a redrive or a discard: the row's new
// state.
type Change struct {
	Pipeline   string
	N          int64
	State      State
	Claim      int64
	Unanswered bool
}

// Unpark removes an event that was published, or a discarded one after its time,
// which the model remembers.
type Unpark struct {
	Pipeline string
	N        int64
}

// row returns the parked row of an event; one that is not discarded, if there is one.
func (w *World) row(pipeline, name string) (found *ParkedRow) {
	for _, row := range w.parked[lane{pipeline, w.keyOf(name)}] {
		if row.Name == name && (found == nil || found.State == Discarded) {
			found = row
		}
	}
	return found
}

func (w *World) rowN(pipeline string, n int64) *ParkedRow {
	if row := w.numbers[number{pipeline, n}]; row != nil {
		return row
	}
	w.rule(false, "%s has no parked event %d", pipeline, n)
	return &ParkedRow{N: n}
}

// lane lists what waits, in the order of parking. Events without a key have none.
func (w *World) lane(l lane) (rows []*ParkedRow) {
	for _, row := range w.parked[l] {
		if row.State != Discarded && l.key != "" {
			rows = append(rows, row)
		}
	}
	return rows
}

func (w *World) keyOf(name string) string {
	if e := w.log[name]; e != nil {
		return e.Key
	}
	return ""
}

func (w *World) touch(pipeline string, row *ParkedRow) {
	w.touched[lane{pipeline, w.keyOf(row.Name)}] = true
}

// checkLanes looks at the lanes that a transaction has changed, when it has ended.
func (w *World) checkLanes() {
	for l := range w.touched {
		for i, row := range w.lane(l) {
			w.rule((row.State == Blocked) == (i > 0), "the parked event %s is number %d of its key and %s", row.Name, i+1, row.State)
		}
	}
}

func (s Park) apply(w *World) {
	e := w.find(s.Name)
	w.rule(e.tx == committed, "%s is parked and not committed", s.Name)
	row := &ParkedRow{N: s.N, Name: s.Name, State: s.State}
	l := lane{s.Pipeline, e.Key}
	w.parked[l], w.numbers[number{s.Pipeline, s.N}] = append(w.parked[l], row), row
	w.touch(s.Pipeline, row)
	// Whatever was written before it waits in front of it or is dealt with.
	part := Part{s.Pipeline, e.Shard}
	h := w.holds[holder{relayOf(w.leases[part].Owner), part}]
	for _, f := range w.before(e) {
		w.rule(h != nil && w.dealtWith(part, h, f, nil) || w.row(s.Pipeline, f.Name) != nil, "%s is parked before %s", s.Name, f.Name)
	}
}

func (s Change) apply(w *World) {
	row := w.rowN(s.Pipeline, s.N)
	w.touch(s.Pipeline, row)
	e := w.find(row.Name)
	l := w.leases[Part{s.Pipeline, e.Shard}]
	w.rule(row.State != Discarded || s.State == Discarded, "%s was discarded and is %s again", row.Name, s.State)
	w.rule(s.Unanswered || !row.Unanswered, "that %s may have been published is forgotten", row.Name)
	if s.Claim != 0 && s.Claim != row.Claim {
		w.rule(s.Claim == l.Epoch, "%s is claimed under epoch %d of a lease with epoch %d", row.Name, s.Claim, l.Epoch)
		w.rule(row.State == Retrying || row.State == Blocked, "%s is claimed and %s", row.Name, row.State)
		w.rule(row.Claim == 0 || s.Unanswered, "%s is claimed again, and that it may have been published is forgotten", row.Name)
	}
	if s.State == Discarded && row.State != Discarded {
		w.rule(row.Claim != l.Epoch || !w.instances[l.Owner], "%s is discarded while it is being published", row.Name)
		w.rule(row.Claim == 0 || s.Unanswered, "%s is discarded, and that it may have been published is forgotten", row.Name)
	}
	row.State, row.Claim, row.Unanswered = s.State, s.Claim, s.Unanswered
}

func (s Unpark) apply(w *World) {
	row := w.rowN(s.Pipeline, s.N)
	w.touch(s.Pipeline, row)
	if row.State == Discarded {
		return
	}
	part := Part{s.Pipeline, w.find(row.Name).Shard}
	h := w.holds[holder{relayOf(w.leases[part].Owner), part}]
	w.rule(h != nil && row.Claim == h.Epoch && h.confirmed[row.Name], "the parked event %s is deleted and was not confirmed", row.Name)
	l := lane{s.Pipeline, w.keyOf(row.Name)}
	w.parked[l] = slices.DeleteFunc(w.parked[l], func(r *ParkedRow) bool { return r == row })
}

// checkTurn is the rule for the publication of a parked event: what is before it in
// its lane has been confirmed or goes with it.
func (w *World) checkTurn(s Send, h *hold, row *ParkedRow, inCall []string) {
	for _, f := range w.lane(lane{s.Pipeline, w.keyOf(row.Name)}) {
		if f.N >= row.N {
			return
		}
		w.rule(h.confirmed[f.Name] || slices.Contains(inCall, f.Name), "%s publishes the parked event %s before %s", s.Relay, row.Name, f.Name)
	}
}
