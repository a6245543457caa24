// Package verdict judges a run of the example from what it left in the two
// databases, read with plain SQL, against a script that was written by hand.
package verdict

import (
	"fmt"
	"slices"

	"github.com/outboxkit/outboxkit/internal/history"
)

// Step is one thing that must happen to a delivery.
type Step struct {
	What  string // as in the history: created, in transit, …
	Cause string // id of the drone's report that it follows from
}

// Script is what must happen to one delivery.
type Script struct {
	Delivery string
	Request  string // the customer's, which all its events belong to
	Steps    []Step
}

// Event is one event of a delivery, where it was written or where it took effect.
type Event struct {
	Delivery, What     string
	ID, Cause, Request string
	Seq                int64 // order within its table
}

// View is a row of the read model.
type View struct {
	Delivery, State string
	Changes         int
}

// Evidence is what a run left behind.
type Evidence struct {
	Scripts []Script
	Written []Event  // the delivery service's outbox
	History []Event  // the history service's table
	Views   []View   // the history service's read model
	Dead    []string // dead letters of both services, for people
}

// Promise is one sentence, and what this run says about it.
type Promise struct {
	Name   string   `json:"name"`
	Held   bool     `json:"held"`
	Broken []string `json:"broken,omitempty"` // at most 3 stories
}

// Judge returns every promise, kept or broken.
func Judge(e Evidence) []Promise {
	written, taken := byDelivery(e.Written), byDelivery(e.History)
	stories := map[history.Kind][]string{}
	for _, v := range history.Check(numbered(written, taken)) {
		stories[v.Kind] = append(stories[v.Kind], v.String())
	}
	return []Promise{
		promise("each report translated once, in order", translation(e.Scripts, written)),
		promise("nothing lost", stories[history.Loss]),
		promise("nothing invented", stories[history.Phantom]),
		promise("each event once in the history", stories[history.Double]),
		promise("each delivery's history in order", stories[history.Inversion]),
		promise("every event names its cause", chain(e.Scripts, written, taken)),
		promise("the read model agrees", views(e)),
		promise("no dead letters", e.Dead),
	}
}

func byDelivery(events []Event) map[string][]Event {
	all := map[string][]Event{}
	for _, e := range events {
		all[e.Delivery] = append(all[e.Delivery], e)
	}
	for _, es := range all {
		slices.SortFunc(es, func(a, b Event) int { return int(a.Seq - b.Seq) })
	}
	return all
}

// numbered gives each event its number in the order in which its delivery's were
// written; one that was not written has number 0.
func numbered(written, taken map[string][]Event) (writes []history.Write, effects []history.Effect) {
	numbers := map[string]int64{}
	for delivery, es := range written {
		for i, e := range es {
			numbers[e.ID] = int64(i) + 1
			writes = append(writes, history.Write{Key: delivery, N: int64(i) + 1})
		}
	}
	for delivery, es := range taken {
		for _, e := range es {
			effects = append(effects, history.Effect{Key: delivery, N: numbers[e.ID], Seq: e.Seq})
		}
	}
	return writes, effects
}

// translation compares what the delivery service wrote with the scripts.
func translation(scripts []Script, written map[string][]Event) (stories []string) {
	known := map[string]bool{}
	for _, s := range scripts {
		known[s.Delivery] = true
		var want, got []string
		for _, step := range s.Steps {
			want = append(want, step.What)
		}
		for _, e := range written[s.Delivery] {
			got = append(got, e.What)
		}
		if !slices.Equal(want, got) {
			stories = append(stories, fmt.Sprintf("%s: want %q, got %q", s.Delivery, want, got))
		}
	}
	for delivery := range written {
		if !known[delivery] {
			stories = append(stories, delivery+": nobody has reported about it")
		}
	}
	return stories
}

// chain compares causes and requests at both ends with the scripts.
func chain(scripts []Script, written, taken map[string][]Event) (stories []string) {
	for _, s := range scripts {
		origin := map[string]Step{}
		for i, e := range written[s.Delivery] {
			if i >= len(s.Steps) {
				break // told as a wrong translation
			}
			origin[e.ID] = s.Steps[i]
			if e.Cause != s.Steps[i].Cause || e.Request != s.Request {
				stories = append(stories, fmt.Sprintf("%s, %s as written: cause %q of %q, want %q of %q",
					s.Delivery, e.What, e.Cause, e.Request, s.Steps[i].Cause, s.Request))
			}
		}
		for _, e := range taken[s.Delivery] {
			want, ok := origin[e.ID]
			if ok && (e.What != want.What || e.Cause != want.Cause || e.Request != s.Request) {
				stories = append(stories, fmt.Sprintf("%s, %s in the history: cause %q of %q, want %s, %q of %q",
					s.Delivery, e.What, e.Cause, e.Request, want.What, want.Cause, s.Request))
			}
		}
	}
	return stories
}

func views(e Evidence) (stories []string) {
	found := map[string]View{}
	for _, v := range e.Views {
		found[v.Delivery] = v
	}
	for _, s := range e.Scripts {
		want := View{s.Delivery, s.Steps[len(s.Steps)-1].What, len(s.Steps)}
		if got := found[s.Delivery]; got != want {
			stories = append(stories, fmt.Sprintf("%s is %q after %d changes, want %q after %d", s.Delivery, got.State, got.Changes, want.State, want.Changes))
		}
	}
	return stories
}

const maxStories = 3

func promise(name string, stories []string) Promise {
	p := Promise{Name: name, Held: len(stories) == 0, Broken: stories}
	if more := len(stories) - maxStories; more > 0 {
		p.Broken = append(stories[:maxStories:maxStories], fmt.Sprintf("and %d more", more))
	}
	return p
}
