// Package verdict says which promises a run of the demo kept. It judges what the
// writers were told against the rows that the consumers' tables hold; it asks no
// counter of the code that is on trial.
package verdict

import (
	"fmt"

	"github.com/outboxkit/outboxkit/internal/history"
)

// Evidence is what a run left behind.
type Evidence struct {
	Written  []history.Write // orders whose Place returned nil; Key = user, N = order
	Poison   string          // id of the one event that nobody can handle
	Services []Service       // the consumers
	// PlacedWithoutRelay is how many orders were placed while no relay ran.
	PlacedWithoutRelay int
	// RowsChanged is how many rows of the outbox's log were updated or deleted.
	RowsChanged int64
}

// Service is one consumer's database.
type Service struct {
	Name    string
	Effects []history.Effect
	Dead    []Dead
}

// Dead is one row of the consumer's dead letters.
type Dead struct {
	ID    string // event id
	State string // "dead", or "blocked": stored behind a dead one of its key
}

// Promise is one sentence of the README, and what this run says about it.
type Promise struct {
	Name   string   `json:"name"`
	Held   bool     `json:"held"`
	Broken []string `json:"broken,omitempty"` // at most 3 stories
}

const maxStories = 3

// Judge returns every promise, kept or broken.
func Judge(e Evidence) []Promise {
	stories := map[history.Kind][]string{}
	var isolation, harmless []string
	for _, s := range e.Services {
		for _, v := range history.Check(e.Written, s.Effects) {
			stories[v.Kind] = append(stories[v.Kind], s.Name+": "+v.String())
		}
		isolation = append(isolation, poisoned(s, e.Poison)...)
	}
	if e.PlacedWithoutRelay == 0 {
		harmless = append(harmless, "no order could be placed while the relay was dead")
	}
	if e.RowsChanged > 0 {
		harmless = append(harmless, fmt.Sprintf("%d rows of the event log were updated or deleted", e.RowsChanged))
	}
	return []Promise{
		promise("nothing lost", stories[history.Loss]),
		promise("nothing of a rolled-back transaction", stories[history.Phantom]),
		promise("once in each consumer's database", stories[history.Double]),
		promise("in order per user", stories[history.Inversion]),
		promise("a bad event stops nothing else", isolation),
		promise("harmless to the service that writes", harmless),
	}
}

// poisoned says what is wrong with a service's dead letters: there must be
// exactly one, the poison.
func poisoned(s Service, poison string) (stories []string) {
	found := 0
	for _, d := range s.Dead {
		if d.ID == poison {
			found++
			continue
		}
		stories = append(stories, fmt.Sprintf("%s: event %s was not handled: it is %s", s.Name, d.ID, d.State))
	}
	if found != 1 {
		stories = append(stories, fmt.Sprintf("%s: the poison event is there as %d dead letters, not 1", s.Name, found))
	}
	return stories
}

func promise(name string, stories []string) Promise {
	p := Promise{Name: name, Held: len(stories) == 0, Broken: stories}
	if more := len(stories) - maxStories; more > 0 {
		p.Broken = append(stories[:maxStories:maxStories], fmt.Sprintf("and %d more", more))
	}
	return p
}
