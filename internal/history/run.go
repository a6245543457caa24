package history

import (
	"cmp"
	"slices"
	"time"
)

// Run is what was seen of one stream of events, from the writers' database through
// one broker to its consumers. It is read when everything has come to rest, with
// plain SQL and a plain client of the broker.
type Run struct {
	Written   []Written
	Published []Published // the whole log, repeats included
	Effects   []Effected
	Dead      []DeadLetter // those that nobody has dealt with
	// Consumers must each have an effect, or a dead letter, of every committed event.
	Consumers []string
	// Passing lets later events of a key pass a dead one.
	Passing bool
	// Takeovers is how often a key can have come to another relay: how often its
	// lease changed hands, and two more for each freeze, which may fall between a
	// relay's last look at its clock and the publication. 0 judges nothing.
	Takeovers int
	// Faults are told in the stories of events that they fell upon.
	Faults []Fault
}

// Fate is what became of a writer's attempt.
type Fate string

// The fates.
const (
	Committed  Fate = "committed"
	RolledBack Fate = "rolled back"
	// Forgotten is an attempt that was committed, or whose commit was not answered, and
	// that the database has forgotten (an asynchronous standby was promoted): its
	// event may be out, and need not.
	Forgotten Fate = "forgotten"
	// Injected is no writer's: it was sent to the broker directly, and must only die.
	Injected Fate = "injected"
)

// Written is an attempt of a writer.
type Written struct {
	ID     string // of the event: each attempt has its own
	Key    string // "": without order
	N      int64  // counts the committed writes of the key from 1, under its row lock
	At     time.Time
	Slot   int // of the log, in which it was stored
	Fate   Fate
	Poison bool // it cannot be published, or not be handled
}

// Published is one record of a broker's log.
type Published struct {
	ID     string
	Unit   string // partition or queue, in which records have an order
	Offset int64
	At     time.Time // broker's; zero if it says none
	By     string    // the relay process that handed it to its publisher, "" if unknown
	Handed time.Time // when
}

// Effected is an effect in a consumer's table; see [Effect] for Seq.
type Effected struct {
	Consumer string
	ID       string
	Seq      int64
	At       time.Time
}

// DeadLetter is an event that waits for a person.
type DeadLetter struct {
	Consumer string // "": parked by the relay
	ID       string
	State    string
	Reason   string
	At       time.Time
}

// Fault is something that was done to the run.
type Fault struct {
	At   time.Time
	Text string
}

// More kinds of violation.
const (
	Unexplained Kind = "unexplained dead letter"  // neither poison nor behind one
	Overlap     Kind = "two publishers at a time" // of one key
)

// seen is what is known of one event.
type seen struct {
	*Written

	published []*Published // in the order of the log
	effects   map[string][]*Effected
	dead      map[string][]*DeadLetter
}

// index is a Run by event.
type index struct {
	*Run

	events map[string]*seen
	order  []*seen // as written, then what nobody wrote
	// poison are the keys of dead poison by consumer: true if the database has
	// forgotten it, so that it has no place in the key's order.
	poison map[[2]string]bool
	found  []finding
}

// finding is a violation without its story.
type finding struct {
	kind   Kind
	text   string
	events []*seen // the first is the one concerned
}

func newIndex(r *Run) *index {
	ix := &index{Run: r, events: map[string]*seen{}, poison: map[[2]string]bool{}}
	for i := range r.Written {
		w := &r.Written[i]
		if old := ix.events[w.ID]; old != nil { // the caller's mistake
			ix.add(Double, "was written twice", old)
			continue
		}
		ix.note(w)
	}
	for i := range r.Published {
		e := ix.of(r.Published[i].ID)
		e.published = append(e.published, &r.Published[i])
	}
	for i := range r.Effects {
		e, f := ix.of(r.Effects[i].ID), &r.Effects[i]
		e.effects[f.Consumer] = append(e.effects[f.Consumer], f)
	}
	for i := range r.Dead {
		e, d := ix.of(r.Dead[i].ID), &r.Dead[i]
		e.dead[d.Consumer] = append(e.dead[d.Consumer], d)
		if lane := [2]string{e.Key, d.Consumer}; e.Poison {
			ix.poison[lane] = ix.poison[lane] || e.Fate == Forgotten
		}
	}
	for _, e := range ix.order {
		slices.SortFunc(e.published, comparePublished)
	}
	return ix
}

func (ix *index) note(w *Written) *seen {
	e := &seen{Written: w, effects: map[string][]*Effected{}, dead: map[string][]*DeadLetter{}}
	ix.events[w.ID] = e
	ix.order = append(ix.order, e)
	return e
}

// of returns an event, also one that nobody wrote.
func (ix *index) of(id string) *seen {
	if e := ix.events[id]; e != nil {
		return e
	}
	return ix.note(&Written{ID: id})
}

func (ix *index) add(kind Kind, text string, events ...*seen) {
	ix.found = append(ix.found, finding{kind, text, events})
}

// keys are the committed events of each key, in order.
func (ix *index) keys() map[string][]*seen {
	keys := map[string][]*seen{}
	for _, e := range ix.order {
		if e.Fate == Committed && e.Key != "" {
			keys[e.Key] = append(keys[e.Key], e)
		}
	}
	for _, events := range keys {
		slices.SortFunc(events, func(a, b *seen) int { return cmp.Compare(a.N, b.N) })
	}
	return keys
}

func comparePublished(a, b *Published) int {
	return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Offset, b.Offset))
}
