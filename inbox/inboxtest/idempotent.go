package inboxtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// Stress is what RequireIdempotent delivers, and what it looks at.
type Stress struct {
	// Events are delivered in this order at first; later runs keep the order
	// within each topic and key. A few keys with a few events each are enough; let
	// different keys touch the same rows. Required.
	Events []event.Draft
	// Database returns a database with the consumer's and the inbox's tables, and
	// with whatever the handlers expect to be there. It is called for each run, one
	// after the other: let it make a new one, or empty the same one, the inbox's
	// tables included. What handlers change outside the database, such as a fake
	// of a mail server, is made new here too. Required.
	Database func(t testing.TB) *pgxpool.Pool
	// Snapshot returns the state that handlers have made, as text, a line for each
	// thing: see [Query]. It leaves out what may differ, such as generated ids and
	// times. Required.
	Snapshot func(ctx context.Context, pool *pgxpool.Pool) (string, error)
	// Seed repeats a run: the orders, and where connections break; not how the
	// system schedules goroutines. Default 0: another one each time, which the
	// report names.
	Seed uint64
}

func (s Stress) validate() error {
	field := ""
	switch {
	case len(s.Events) == 0:
		field = "Events"
	case s.Database == nil:
		field = "Database"
	case s.Snapshot == nil:
		field = "Snapshot"
	default:
		return nil
	}
	return &event.FieldError{Field: "inboxtest.Stress." + field, Problem: "is not set", Hint: "it is required"}
}

// run is one way of delivering the events.
type run struct {
	name, about string
	order       func(msgs []brokers.Message, rng *rand.Rand) []brokers.Message // nil: as given
	oneByOne    bool
	twice       bool // each message, to two instances at once, and all of it to a third, which alone handles the last ones
	crashes     bool
}

var reference = run{name: "reference", about: "each event once, in order, one at a time", oneByOne: true}

var runs = []run{
	{
		name: "order", about: "each event once, the keys in another order, one at a time",
		order: keysReversed, oneByOne: true,
	},
	{
		name: "crashes", about: "each event's connection broken at a statement of its handler, and then before its commit",
		order: shuffled, crashes: true,
	},
	{
		name: "duplicates", about: "each event twice, to two instances at once, and all again to a third that then goes on alone",
		order: shuffled, twice: true,
	},
	{
		name: "everything", about: "duplicates to several instances, in another order, with crashes",
		order: shuffled, twice: true, crashes: true,
	},
}

// RequireIdempotent ends the test unless the consumer leaves the same state
// behind, whichever way the events reach it; the package comment lists the ways.
// Dead letters are part of the state. It takes a few seconds.
func (c Consumer) RequireIdempotent(t testing.TB, s Stress) {
	t.Helper()
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		t.Fatal("inboxtest: ", err)
	}
	if err := s.validate(); err != nil {
		t.Fatal("inboxtest: ", err)
	}
	for s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	msgs, err := c.messages(t.Context(), s.Events)
	if err == nil {
		err = distinct(msgs)
	}
	if err != nil {
		t.Fatal("inboxtest: ", err)
	}
	x := &stress{Stress: s, t: t, consumer: c, msgs: msgs}
	want, problem := x.reference()
	if problem != "" {
		t.Fatalf("inboxtest: %s\n%s", reference.about, problem)
	}
	var failed []string
	for n, r := range runs {
		if problem := x.compare(r, n+1, want); problem != "" {
			failed = append(failed, fmt.Sprintf("* %s: %s\n%s", r.name, r.about, problem))
		}
	}
	if len(failed) > 0 {
		t.Fatalf("inboxtest: the consumer's state depends on how events are delivered (Stress.Seed %d repeats this)\n\n%s",
			s.Seed, strings.Join(failed, "\n\n"))
	}
}

// distinct refuses events with the same identity: repeating them is our task.
func distinct(msgs []brokers.Message) error {
	seen := map[string]bool{}
	for _, m := range msgs {
		if seen[m.ID] {
			return fmt.Errorf("Stress.Events has the id %s twice: give each event once, they are delivered several times", m.ID)
		}
		seen[m.ID] = true
	}
	return nil
}
