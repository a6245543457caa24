package relay

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// resolve publishes a share until the broker has confirmed each event of it or the
// event is to be parked, and returns false if the session ended first.
func (s *session) resolve(sh *share, report func(published int)) bool {
	todo, err := s.queueBehind(unresolved(sh.events))
	if err != nil {
		s.end(err)
		return false
	}
	pause := jitter(s.r.tune.retryMax)
	for len(todo) > 0 {
		if !s.t.alive() || s.ctx.Err() != nil {
			return false
		}
		wait := s.pass(todo)
		left := unresolved(todo)
		if len(left) < len(todo) {
			pause.Reset()
		} else if wait == 0 {
			wait = pause.NextBackOff()
		}
		if todo = left; len(todo) > 0 {
			report(published(sh.events))
			sleep(s.ctx, wait)
		}
	}
	return true
}

// pass makes one attempt with what may be sent now, and returns how long to wait if
// that is nothing. While the broker is in trouble, one share at a time has its pass:
// probes are single, and a window that opens is not opened by each share anew.
func (s *session) pass(todo []*item) (wait time.Duration) {
	if state, _, _ := s.parking.broker.look(); state != circuitClosed {
		s.parking.trouble.Lock()
		defer s.parking.trouble.Unlock()
	}
	now, wait := s.choose(todo)
	if len(now) > 0 {
		s.attempt(now)
		s.learn(now)
	}
	s.giveUp(todo)
	return wait
}

// published is the number of events before the first one that is not published:
// one that is parked counts when it is stored, and not before.
func published(events []*item) int {
	for i, it := range events {
		if !it.done {
			return i
		}
	}
	return len(events)
}

func unresolved(todo []*item) (left []*item) {
	for _, it := range todo {
		if !it.done && it.park == "" {
			left = append(left, it)
		}
	}
	return left
}

// choose picks what may be sent now: what the broker's circuit, the topics'
// circuits and the retry budget allow, in order. It parks the events of topics
// whose circuit is open, except a probe.
func (s *session) choose(todo []*item) (now []*item, wait time.Duration) {
	p := s.parking
	n, wait := p.broker.acquire(len(todo))
	if n == 0 {
		return nil, wait
	}
	retries := math.MaxInt // in recovery the window is the limit
	if state, _, _ := p.broker.look(); state == circuitClosed {
		retries = p.budget.spend(tried(todo))
	}
	grants := p.topics.grants(todo)
	for _, it := range todo {
		grant, troubled := grants[it.msg.Topic]
		switch {
		case troubled && grant.n == 0 && grant.sent == 0:
			it.park, it.failed = stateRetrying, grant.err
			continue
		case troubled && grant.n == 0:
			continue
		case len(now) == n || it.tries > 0 && retries == 0:
			p.settle(now, grants)
			return now, 0
		}
		if troubled {
			grant.n--
			grant.sent++
		}
		if it.tries > 0 {
			retries--
		}
		now = append(now, it)
	}
	p.settle(now, grants)
	return now, 0
}

func tried(todo []*item) (n int) {
	for _, it := range todo {
		if it.tries > 0 {
			n++
		}
	}
	return n
}

// settle gives back the probes that choose took and did not use.
func (p *parking) settle(now []*item, grants map[string]*topicGrant) {
	if len(now) == 0 {
		p.broker.spared()
	}
	for _, g := range grants {
		if g.sent == 0 {
			g.circuit.spared()
		}
	}
}

// attempt hands events to the publisher once and notes how each fared. An event
// that cannot be prepared holds the later ones of its key.
func (s *session) attempt(todo []*item) {
	for _, it := range todo {
		it.tries++
	}
	if err := s.r.schemas.fetch(s.ctx, todo); err != nil {
		for _, it := range todo {
			it.failed = err
		}
		return
	}
	held := map[lane]bool{}
	batch := make([]brokers.Message, 0, len(todo))
	sent := make([]*item, 0, len(todo))
	for _, it := range todo {
		if it.msg.Key != "" && len(held) > 0 && held[laneOf(&it.msg)] {
			it.failed = brokers.ErrHeld
			continue
		}
		if it.failed = s.prepare(s.ctx, it); it.failed != nil {
			held[laneOf(&it.msg)] = true
			continue
		}
		batch, sent = append(batch, it.msg), append(sent, it)
	}
	if len(batch) == 0 {
		return
	}
	results := s.To.Publish(s.ctx, batch)
	for i, it := range sent {
		if len(results) == len(batch) {
			it.failed = results[i]
		} else {
			it.failed = fmt.Errorf("publisher returned %d results for %d messages", len(results), len(batch))
		}
		it.done = it.failed == nil
	}
}

// learn tells circuits, budget and stats how an attempt went.
func (s *session) learn(now []*item) {
	type outcome struct {
		confirmed int
		bad       error // of the destination
	}
	topics := map[string]*outcome{}
	var confirmed int
	var away, bad error
	for _, it := range now {
		o := topics[it.msg.Topic]
		if o == nil {
			o = &outcome{}
			topics[it.msg.Topic] = o
		}
		switch {
		case it.done:
			confirmed++
			o.confirmed++
		case errors.Is(it.failed, brokers.ErrHeld):
		case brokers.ClassOf(it.failed) == brokers.ClassUnavailable:
			if away == nil {
				away = it.failed
			}
		case brokers.ClassOf(it.failed) == brokers.ClassDestination:
			o.bad, bad = it.failed, it.failed
		}
	}
	s.stats.resolved(confirmed, len(now)-confirmed)
	s.parking.budget.earn(confirmed)
	p := s.parking
	for topic, o := range topics {
		c := p.topics.get(topic)
		switch {
		case o.confirmed > 0 && c != nil:
			p.topics.report(topic, nil)
		case o.confirmed == 0 && o.bad != nil:
			p.topics.report(topic, o.bad)
		case c != nil:
			c.spared()
		}
	}
	switch {
	case s.ctx.Err() != nil: // says nothing about the broker
	case confirmed > 0 || bad != nil: // it answers
		p.broker.succeeded()
	case away != nil:
		p.broker.failed(away)
	default:
		p.broker.spared()
	}
	if away != nil && s.ctx.Err() == nil {
		s.stats.failed(away)
		s.log.Warn("relay: publishing failed, trying again", "events", len(now)-confirmed, "reason", away)
	}
}

// giveUp marks events for parking: those that can never be published, those whose
// topic has had its attempts, and later ones of their keys. An outage of the
// broker parks nothing.
func (s *session) giveUp(todo []*item) {
	held := map[lane]bool{}
	for _, it := range todo {
		if it.done {
			continue
		}
		l := laneOf(&it.msg)
		if it.park == "" {
			it.park = s.verdict(it, held[l])
		}
		if it.park != "" && l.key != "" && s.parking.block {
			held[l] = true
		}
	}
}

func (s *session) verdict(it *item, held bool) string {
	if held {
		return stateBlocked
	}
	if it.failed == nil || errors.Is(it.failed, brokers.ErrHeld) {
		return ""
	}
	switch brokers.ClassOf(it.failed) {
	case brokers.ClassRejected:
		return stateDead
	case brokers.ClassDestination:
		// A topic may be bad for some of its events only: their own attempts count too.
		c := s.parking.topics.get(it.msg.Topic)
		if it.tries >= s.r.tune.park.topicTrip || c != nil && c.isOpen() {
			return stateRetrying
		}
	case brokers.ClassUnavailable:
	}
	return ""
}
