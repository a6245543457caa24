package model

import "slices"

// Send hands events to the broker in one call. From here on they may arrive at any
// time, whatever becomes of the relay; each after those before it of its key.
type Send struct {
	Call     int
	Pipeline string
	Relay    string
	Names    []string
}

// Arrive is the broker's acceptance of an event.
type Arrive struct {
	Call int
	Name string
}

// Answer is what the relay learns of an event. An answer that was lost may be that
// of an event that has arrived, or that will.
type Answer struct {
	Call   int
	Name   string
	Result Result
}

// Result of a publication.
type Result string

// Results.
const (
	Confirmed Result = "confirmed"
	Refused   Result = "refused"
	Lost      Result = "lost"
)

type call struct {
	Send

	holds   map[string]*hold
	claimed map[string]bool
	arrived map[string]bool
}

func (s Send) apply(w *World) {
	c := &call{Send: s, holds: map[string]*hold{}, claimed: map[string]bool{}, arrived: map[string]bool{}}
	w.calls[s.Call] = c
	for i, name := range s.Names {
		e := w.find(name)
		part := Part{s.Pipeline, e.Shard}
		h := w.holds[holder{s.Relay, part}]
		if !w.rule(h != nil, "%s publishes %s, whose lease it never had", s.Relay, name) {
			continue
		}
		h.open++
		c.holds[name] = h
		owned := w.leases[part] == h.Lease
		w.rule(owned || w.Untimed, "%s publishes %s, whose lease it has no more", s.Relay, name)
		w.rule(e.tx == committed, "%s publishes %s, which is not committed", s.Relay, name)
		if row := w.row(s.Pipeline, name); row != nil && row.Claim != 0 {
			c.claimed[name] = true
			w.rule(row.Claim == h.Epoch || !owned, "%s publishes the parked event %s, which it has not claimed", s.Relay, name)
			w.checkTurn(s, h, row, s.Names[:i])
			continue
		}
		for _, f := range w.before(e) {
			w.rule(w.dealtWith(part, h, f, s.Names[:i]), "%s publishes %s before %s", s.Relay, name, f.Name)
		}
		if rows := w.lane(lane{s.Pipeline, e.Key}); owned && e.Key != "" && len(rows) > 0 {
			w.rule(false, "%s publishes %s, and %s of its key is parked", s.Relay, name, rows[0].Name)
		}
	}
}

// dealtWith tells whether the next event of a key may be published as far as f is
// concerned.
func (w *World) dealtWith(part Part, h *hold, f *logRow, inCall []string) bool {
	return h.base.Passed(f.Event) || w.stored[part].Passed(f.Event) || h.confirmed[f.Name] || slices.Contains(inCall, f.Name)
}

func (s Arrive) apply(w *World) {
	c, e := w.calls[s.Call], w.find(s.Name)
	if !w.rule(c != nil && slices.Contains(c.Names, s.Name), "%s arrives and was not sent", s.Name) {
		return
	}
	c.arrived[s.Name] = true
	w.promise(e.tx == committed, "%s is published and was never committed", s.Name)
	if w.out[c.Pipeline][s.Name] {
		return // a repetition
	}
	w.out[c.Pipeline][s.Name] = true
	for _, f := range w.before(e) {
		gone := w.row(c.Pipeline, f.Name)
		w.promise(w.out[c.Pipeline][f.Name] || gone != nil && gone.State == Discarded, "%s is published before %s of the same key", s.Name, f.Name)
	}
	if row := w.row(c.Pipeline, s.Name); row != nil && row.State == Discarded && c.claimed[s.Name] {
		w.promise(row.Unanswered, "%s is published although it was discarded, and the operator was not told that it might be", s.Name)
	}
}

func (s Answer) apply(w *World) {
	c := w.calls[s.Call]
	if !w.rule(c != nil && slices.Contains(c.Names, s.Name), "%s is answered and was not sent", s.Name) {
		return
	}
	if h := c.holds[s.Name]; h != nil {
		h.open--
		if s.Result == Confirmed {
			h.confirmed[s.Name] = true
		}
	}
	w.rule(s.Result != Confirmed || c.arrived[s.Name], "%s is confirmed and has not arrived", s.Name)
}
