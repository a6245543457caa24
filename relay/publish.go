package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/cenkalti/backoff/v5"

	"github.com/outboxkit/outboxkit/brokers"
)

// publishAll takes pages until reading ends. A page is resolved before the next
// one is handed to the broker: that is what keeps the order of a key whose events
// stand on several pages.
func (s *session) publishAll(reading context.Context, pages <-chan page) {
	for p := range pages {
		// Once a page has been skipped all that follow must be, empty ones too:
		// their positions lie beyond it.
		if reading.Err() != nil || s.ctx.Err() != nil {
			continue
		}
		s.stats.at(p)
		if !s.resolve(p) {
			s.end(errLeaseLost) // a cause that is already set stays
			continue
		}
		s.progress.advance(p.shards, p.to, len(p.events) > 0 || s.passedOver(p))
	}
}

// resolve publishes a page until the broker has confirmed each event of it, and
// returns false if the session ended first.
func (s *session) resolve(p page) bool {
	todo := p.events
	away, bad := jitter(s.r.tune.retryMax), jitter(s.r.tune.badMax)
	for attempt := 0; len(todo) > 0; attempt++ {
		if !s.t.alive() || s.ctx.Err() != nil {
			return false
		}
		left := s.attempt(todo)
		s.stats.resolved(len(todo)-len(left), len(left))
		if len(left) == 0 {
			return true
		}
		if len(left) < len(todo) {
			away.Reset()
			bad.Reset()
			// Remember the part that is done: less to repeat after a crash.
			s.progress.advance(p.shards, p.after(len(p.events)-tail(p.events, left)), true)
		}
		todo = left
		sleep(s.ctx, s.pause(left, away, bad).NextBackOff())
	}
	return true
}

// tail is the number of events from the first unresolved one on.
func tail(events, left []*item) int {
	for i, it := range events {
		if it == left[0] {
			return len(events) - i
		}
	}
	return 0
}

// pause chooses the backoff: the longer one if everything left waits for somebody
// to mend a destination or an event. It reports the failures.
func (s *session) pause(left []*item, away, bad *backoff.ExponentialBackOff) *backoff.ExponentialBackOff {
	var worst *item
	waits := false
	reported := map[string]bool{}
	for _, it := range left {
		switch {
		case errors.Is(it.failed, brokers.ErrHeld):
		case brokers.ClassOf(it.failed) == brokers.ClassUnavailable:
			waits = true
			if worst == nil {
				worst = it
			}
		default:
			worst = it
			// One line a topic and attempt: thousands may fail alike.
			if key := it.msg.Topic + brokers.ClassOf(it.failed).String(); !reported[key] {
				reported[key] = true
				s.log.Error("relay: event cannot be published, its pipeline waits",
					"event_id", it.msg.ID, "topic", it.msg.Topic, "key", it.msg.Key, "reason", it.failed)
			}
		}
	}
	if worst != nil {
		s.stats.failed(fmt.Errorf("event %s, topic %q: %w", worst.msg.ID, worst.msg.Topic, worst.failed))
	}
	if len(reported) > 0 && !waits {
		return bad
	}
	if worst != nil && len(reported) == 0 {
		s.log.Warn("relay: publishing failed, trying again", "events", len(left), "topic", worst.msg.Topic, "reason", worst.failed)
	}
	return away
}

// attempt hands what it can to the publisher once and returns what is left, in
// order. An event that cannot be prepared holds the later ones of its key.
func (s *session) attempt(todo []*item) (left []*item) {
	if err := s.r.schemas.fetch(s.ctx, todo); err != nil {
		for _, it := range todo {
			it.failed = err
		}
		return todo
	}
	type lane struct{ topic, key string }
	held := map[lane]bool{}
	batch := make([]brokers.Message, 0, len(todo))
	sent := make([]*item, 0, len(todo))
	for _, it := range todo {
		l := lane{it.msg.Topic, it.msg.Key}
		if l.key != "" && len(held) > 0 && held[l] {
			it.failed = brokers.ErrHeld
			continue
		}
		if it.failed = s.prepare(s.ctx, it); it.failed != nil {
			held[l] = true
			continue
		}
		batch, sent = append(batch, it.msg), append(sent, it)
	}
	if len(batch) > 0 {
		results := s.To.Publish(s.ctx, batch)
		for i, it := range sent {
			if len(results) == len(batch) {
				it.failed = results[i]
			} else {
				it.failed = fmt.Errorf("publisher returned %d results for %d messages", len(results), len(batch))
			}
		}
	}
	for _, it := range todo {
		if it.failed != nil {
			left = append(left, it)
		}
	}
	return left
}
