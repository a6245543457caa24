package model

import (
	"fmt"
	"slices"
	"strings"
)

// Event is a row of the log.
type Event struct {
	Name  string // its identity for ever
	ID    int64  // its place in the log
	Xid   uint64 // its transaction
	Key   string // order is kept for; "" = none
	Shard int
	Slot  int
}

// Part is what a lease and a position are kept for.
type Part struct {
	Pipeline string
	Shard    int
}

// Lease says who may publish a part. The owner's name is "relay/life": a relay that
// starts again takes a new one.
type Lease struct {
	Owner string // "" = nobody
	Epoch int64
}

// World is all that the relays share: the log, the tables of leases, positions and
// parked events, and the broker; with what each holder of a lease has a right to
// know. [World.Do] makes a step, and notes which rule or promise it breaks.
type World struct {
	// Untimed accepts publications after the lease's end. In a recorded trace a step
	// bears the time at which it was recorded, a moment after the relay looked at its
	// clock.
	Untimed bool
	// Pipelines that have ever had a position.
	Pipelines []string
	// Breaches in the order in which they were noticed.
	Breaches []Breach
	// Story is every step so far.
	Story []Step

	log       map[string]*logRow   // by name
	open      map[uint64][]*logRow // of running transactions
	keys      map[string][]*logRow
	shards    map[int][]*logRow
	instances map[string]bool
	leases    map[Part]Lease
	stored    map[Part]Position
	holds     map[holder]*hold
	parked    map[lane][]*ParkedRow // in the order of parking
	numbers   map[number]*ParkedRow
	touched   map[lane]bool // by the step under way
	calls     map[int]*call
	out       map[string]map[string]bool // published, by pipeline and name
}

type txState int

const (
	running txState = iota
	committed
	aborted
)

type logRow struct {
	Event

	tx        txState
	truncated bool
}

// hold is what the owner of a lease may rely on: the position that it found and
// what has been confirmed to it.
type hold struct {
	Lease

	base      Position
	confirmed map[string]bool
	open      int // publications without an answer
}

type holder struct {
	relay string
	part  Part
}

type lane struct{ pipeline, key string }

type number struct {
	pipeline string
	n        int64
}

// Breach is a rule of the design, or a promise to users, that a step has broken.
type Breach struct {
	Promise bool
	Text    string
	Step    int // index in the story
}

func (b Breach) Error() string {
	kind := "rule"
	if b.Promise {
		kind = "promise"
	}
	return fmt.Sprintf("step %d breaks a %s: %s", b.Step, kind, b.Text)
}

// NewWorld is an empty log.
func NewWorld() *World {
	return &World{
		log: map[string]*logRow{}, open: map[uint64][]*logRow{}, keys: map[string][]*logRow{}, shards: map[int][]*logRow{},
		instances: map[string]bool{}, leases: map[Part]Lease{}, stored: map[Part]Position{}, holds: map[holder]*hold{},
		parked: map[lane][]*ParkedRow{}, numbers: map[number]*ParkedRow{}, calls: map[int]*call{}, out: map[string]map[string]bool{},
	}
}

// Step is something that happens to the world.
type Step interface{ apply(w *World) }

// Tx is steps that one transaction makes.
type Tx []Step

func (s Tx) apply(w *World) {
	for _, step := range s {
		step.apply(w)
	}
}

// Do makes a step, allowed or not, and returns the first rule or promise that it
// breaks.
func (w *World) Do(s Step) error {
	before := len(w.Breaches)
	w.Story = append(w.Story, s)
	w.touched = map[lane]bool{}
	s.apply(w)
	w.checkLanes()
	if len(w.Breaches) > before {
		return w.Breaches[before]
	}
	return nil
}

func (w *World) rule(ok bool, format string, args ...any) bool {
	if !ok {
		w.Breaches = append(w.Breaches, Breach{Text: fmt.Sprintf(format, args...), Step: len(w.Story) - 1})
	}
	return ok
}

func (w *World) promise(ok bool, format string, args ...any) {
	if !ok {
		w.Breaches = append(w.Breaches, Breach{Promise: true, Text: fmt.Sprintf(format, args...), Step: len(w.Story) - 1})
	}
}

// Quiet is called when all is quiet: nothing that was committed may be missing.
func (w *World) Quiet() {
	for _, pipeline := range w.Pipelines {
		for _, rows := range w.shards {
			for _, e := range rows {
				w.promise(e.tx != committed || w.out[pipeline][e.Name] || w.row(pipeline, e.Name) != nil,
					"%s (id %d) is lost: neither published by %s nor parked", e.Name, e.ID, pipeline)
			}
		}
	}
}

// Tell is the story as a text, a step a line.
func (w *World) Tell() string {
	var text strings.Builder
	for i, s := range w.Story {
		fmt.Fprintf(&text, "%4d %T%+v\n", i, s, s)
	}
	return strings.ReplaceAll(text.String(), "model.", "")
}

// find returns the event's row, an empty one if there is none.
func (w *World) find(name string) *logRow {
	if e := w.log[name]; e != nil {
		return e
	}
	w.rule(false, "%s is in no committed transaction", name)
	return &logRow{Event: Event{Name: name}, tx: aborted}
}

// before lists the committed events of the key that were written before.
func (w *World) before(e *logRow) []*logRow {
	if e.Key == "" {
		return nil
	}
	n := slices.Index(w.keys[e.Key], e)
	return w.keys[e.Key][:max(n, 0)]
}

func relayOf(owner string) string {
	name, _, _ := strings.Cut(owner, "/")
	return name
}
