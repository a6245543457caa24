package rabbitmq

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

// expire fails what has waited too long.
func (s *session) expire() {
	s.mu.Lock()
	late := s.late()
	s.mu.Unlock()
	if len(late) == 0 || !s.fence(errNoAnswer) {
		return
	}
	// The broker has it and answers, and still does not confirm: if other queues
	// do, this one has no leader.
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range late {
		class, topic := brokers.ClassUnavailable, ""
		if s.lastAck.After(it.sent) {
			class, topic = brokers.ClassDestination, it.topic
		}
		s.settle(it, outcome{err: failed(class, topic, errNoAnswer)})
	}
}

func (s *session) late() []*item {
	var late []*item
	limit := time.Now().Add(-s.timeout)
	for it := range s.flight {
		if it.sent.Before(limit) {
			late = append(late, it)
		}
	}
	return late
}

// end resolves all that is in flight when the channel is over.
func (s *session) end(e *amqp.Error) {
	s.mu.Lock()
	s.ended = true
	s.takeReturns()
	for it := range s.flight { // an answer that came first counts
		if it.conf != nil && it.conf.Acked() {
			s.settle(it, s.verdict(it))
		}
	}
	o := s.fate(e)
	for it := range s.flight {
		s.settle(it, o(it))
	}
	s.mu.Unlock()
	close(s.dead)
}

// fate returns the outcomes of what is in flight at the end.
func (s *session) fate(e *amqp.Error) func(*item) outcome {
	all := func(o outcome) func(*item) outcome { return func(*item) outcome { return o } }
	switch {
	case errors.Is(s.cause, errGivenUp):
		return all(outcome{again: true}) // it was somebody else's reason
	case s.cause != nil:
		return all(outcome{err: unavailable(s.cause)})
	case !closesChannelOnly(e) || s.link.conn.IsClosed():
		return all(outcome{err: unavailable(fmt.Errorf("%w: %w", errGone, cmp.Or(e, amqp.ErrClosed)))})
	case len(s.flight) == 1:
		return func(it *item) outcome { return s.culprit(it, e) }
	}
	// It is because of one of these, the broker names nobody, and has ignored what
	// came after it.
	s.suspects = max(s.suspects, len(s.flight))
	return all(outcome{again: true})
}

// culprit is the outcome of an item that was alone when the broker closed the
// channel.
func (s *session) culprit(it *item, e *amqp.Error) outcome {
	if it.conf == nil {
		return outcome{again: true} // it came too late to be the reason
	}
	s.suspects = max(s.suspects-1, 0)
	err := brokenBy(e, it.topic)
	if brokers.ClassOf(err) == brokers.ClassDestination {
		s.topo.refuse(it.dest, err)
	}
	return outcome{err: err}
}
