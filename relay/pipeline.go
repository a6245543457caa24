package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

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

// window is the last id that a page of new events may reach to: LIMIT alone does not
// bound the work. With a filter a page query could read on through millions of events
// that are not wanted; without one, Postgres sorts the whole backlog for each page as
// long as it has never analysed the table. Twice the ids that make a page if none is
// missing: transactions that were rolled back leave gaps.
func (s *session) window(at position, shards []int16) int64 {
	ids := 2 * int64(s.r.tune.pageRows) * shardCount / int64(len(shards))
	if !s.Filter.all() {
		ids = s.r.tune.filterIDs
	}
	return min(at.h2, at.c+ids)
}

// skip is the id before the next event after bound, at most h: ids have gaps, for
// example before the oldest event that is retained. What this statement does not
// see, the batch's snapshot does not see either.
func (s *session) skip(ctx context.Context, bound, h int64) (int64, error) {
	op, cancel := s.r.op(ctx)
	defer cancel()
	next := h
	err := s.r.pool.QueryRow(op, s.r.q.next, bound, h).Scan(&next)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return bound, fmt.Errorf("look for the next event: %w", err)
	}
	return next, nil
}
