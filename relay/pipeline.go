package relay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outboxkit/outboxkit/event"
)

// Filter chooses events by exact names; an event must match both lists. An empty
// list matches everything.
type Filter struct {
	// Topics are the topics as written by the service, before Pipeline.Topic.
	// Default: all.
	Topics []string `json:"topics,omitempty"`
	// Types are event types. Default: all.
	Types []string `json:"types,omitempty"`
}

func (f Filter) all() bool { return len(f.Topics) == 0 && len(f.Types) == 0 }

func (f Filter) validate(field string) error {
	for i, topic := range f.Topics {
		if topic == "" {
			return &event.FieldError{Field: fmt.Sprintf("%sFilter.Topics[%d]", field, i), Problem: "is empty", Hint: "no event has such a topic"}
		}
	}
	for i, typ := range f.Types {
		if typ == "" {
			return &event.FieldError{Field: fmt.Sprintf("%sFilter.Types[%d]", field, i), Problem: "is empty", Hint: "no event has such a type"}
		}
	}
	return nil
}

// apply puts the filter into a page query. The database filters, because an event
// that is not wanted should cost no more than a look. Short pages say nothing
// about the log's end then: see session.window.
func (f Filter) apply(query string) string {
	if f.all() {
		return query
	}
	var where string
	if len(f.Topics) > 0 {
		where += " AND topic = ANY($7::text[])"
	}
	if len(f.Types) > 0 {
		where += fmt.Sprintf(" AND type = ANY($%d::text[])", 7+min(len(f.Topics), 1))
	}
	return strings.ReplaceAll(query, filterMark, where)
}

// args are the parameters that apply adds.
func (f Filter) args() []any {
	var args []any
	for _, list := range [][]string{f.Topics, f.Types} {
		if len(list) > 0 {
			args = append(args, slices.Clone(list))
		}
	}
	return args
}

// Start is where a new pipeline begins. The zero value is the oldest event that is
// still retained.
type Start struct {
	// Now begins with what is committed from now on. Transactions that are open at
	// that moment are published.
	Now bool
	// Pipeline begins where the named pipeline stands: that is how a stream moves to
	// another broker. Stop the old pipeline first and nothing is published twice;
	// leave it running and both publish what comes. Either way nothing is left out,
	// but for what the old one has parked, which stays with it. Until the named
	// pipeline is registered the new one waits.
	Pipeline string
}

func (s Start) validate(field, name string) error {
	switch {
	case s.Now && s.Pipeline != "":
		return &event.FieldError{Field: field + "Start", Value: s.Pipeline, Problem: "has both Now and Pipeline", Hint: "choose one"}
	case s.Pipeline != "" && s.Pipeline == name:
		return &event.FieldError{Field: field + "Start.Pipeline", Value: name, Problem: "is the pipeline itself"}
	}
	return nil
}

// destination is the topic at the broker.
func (p *Pipeline) destination(topic string) string {
	if p.Topic == nil {
		return topic
	}
	if to := p.Topic(topic); to != "" {
		return to
	}
	return topic
}

// passedOver tells whether a page may have left events out: a position that moves
// over them is worth storing, or a restart would look through all of them again.
func (s *session) passedOver(p page) bool { return !p.idle && !s.Filter.all() }

// window is the last id that a page of new events may reach to. Without a filter
// LIMIT bounds the work of a page query; with one it could read on through
// millions of events that are not wanted.
func (s *session) window(at position) int64 {
	if s.Filter.all() {
		return at.h2
	}
	return min(at.h2, at.c+s.r.tune.filterIDs)
}
