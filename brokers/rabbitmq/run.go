package rabbitmq

import (
	"context"
	"errors"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

// maxIdleRounds is how many sessions in a row may end without having decided
// anything before a call of Publish gives up.
const maxIdleRounds = 3

// errOpen marks a result that is not known yet.
var errOpen = errors.New("open")

// run is one call of Publish. Its fields belong to the caller's goroutine;
// sessions report through resolved.
type run struct {
	p       *Publisher
	msgs    []brokers.Message
	results []error
	open    int // results not known yet

	next  []int32 // the next message of the same topic and key, -1 if none
	ready []int32 // messages that nothing holds back, not sent

	flight   map[int32]*item
	resolved chan resolution
}

type resolution struct {
	index int32
	outcome
}

type orderKey struct{ topic, key string }

func newRun(p *Publisher, msgs []brokers.Message) *run {
	r := &run{
		p:        p,
		msgs:     msgs,
		results:  make([]error, len(msgs)),
		open:     len(msgs),
		next:     make([]int32, len(msgs)),
		ready:    make([]int32, 0, len(msgs)),
		flight:   make(map[int32]*item),
		resolved: make(chan resolution, len(msgs)), // each message is in flight once
	}
	last := make(map[orderKey]int32)
	for n := range msgs {
		i := int32(n) //nolint:gosec // a slice of messages has no 2^31 elements
		r.results[i], r.next[i] = errOpen, -1
		k := orderKey{msgs[i].Topic, msgs[i].Key}
		if k.key == "" {
			r.ready = append(r.ready, i)
			continue
		}
		if before, ok := last[k]; ok {
			r.next[before] = i
		} else {
			r.ready = append(r.ready, i)
		}
		last[k] = i
	}
	return r
}

// do publishes until every result is known.
func (r *run) do(ctx context.Context) {
	defer r.blame(ctx)
	idle := 0
	for r.open > 0 {
		s, err := r.p.sessions.get(ctx)
		if err != nil {
			r.fail(r.why(err))
			return
		}
		before := r.open
		if err := r.drive(ctx, s); err != nil {
			r.fail(r.why(err))
			return
		}
		if idle++; r.open < before {
			idle = 0
		} else if idle == maxIdleRounds {
			r.fail(unavailable(errUnhealthy))
			return
		}
	}
}

// blame says that the context has ended in every result that may be due to that.
func (r *run) blame(ctx context.Context) {
	if ctx.Err() == nil {
		return
	}
	for i, err := range r.results {
		if err != nil && !errors.Is(err, brokers.ErrHeld) && brokers.ClassOf(err) == brokers.ClassUnavailable {
			r.results[i] = contextError(ctx, err)
		}
	}
}

// why names what ended the run: Close before its effects.
func (r *run) why(err error) error {
	if r.p.sessions.ctx.Err() != nil {
		return unavailable(brokers.ErrClosed)
	}
	return unavailable(err)
}

// drive publishes through one session. It returns nil when every result is known
// or the session has ended, and nothing is in flight either way; an error is for
// all that is not known.
func (r *run) drive(ctx context.Context, s *session) error {
	// The fence runs beside us, because we may be stuck in a write.
	fenced := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fenced)
		s.fence(errGivenUp)
	})
	defer func() {
		if !stop() {
			<-fenced
		}
	}()

	dead := s.dead
	var halt error
	for r.open > 0 && (halt == nil || len(r.flight) > 0) {
		var tokens <-chan struct{}
		if len(r.ready) > 0 && halt == nil && ctx.Err() == nil {
			tokens = s.tokens
		}
		select {
		case <-tokens:
			halt = r.send(s)
		case o := <-r.resolved:
			r.settle(o)
		case <-dead:
			halt, dead = errEnded, nil
		case <-fenced:
			r.abandon(s, unavailable(errNoAnswer))
			return ctx.Err()
		}
	}
	if errors.Is(halt, errEnded) {
		return nil
	}
	return halt
}

// send publishes one message, with a token in hand. It returns why the session
// can send no more, nil if it can.
func (r *run) send(s *session) error {
	i := r.ready[0]
	r.ready = r.ready[1:]
	m := &r.msgs[i]
	d := r.p.route(m)
	msg, err := r.prepare(s, m, d)
	if e := (*brokers.Error)(nil); errors.As(err, &e) {
		s.tokens <- struct{}{}
		r.settle(resolution{i, outcome{err: err}})
		return nil
	}
	if err != nil {
		s.tokens <- struct{}{}
		r.ready = slices.Insert(r.ready, 0, i)
		return errEnded
	}
	it := &item{dest: d, id: msg.MessageId, topic: m.Topic}
	it.resolve = func(o outcome) { r.resolved <- resolution{i, o} }
	if err := s.publish(it, msg); err != nil {
		r.ready = slices.Insert(r.ready, 0, i)
		return err
	}
	r.flight[i] = it
	return nil
}

// prepare returns m as it is sent, a *brokers.Error if it cannot be, or another
// error if the session is over.
func (r *run) prepare(s *session, m *brokers.Message, d destination) (amqp.Publishing, error) {
	var none amqp.Publishing
	if err := r.p.check(m, d); err != nil {
		return none, err
	}
	if err := r.p.topo.ensure(s.link, d, m.Topic); err != nil {
		return none, err
	}
	msg, err := encode(m, d)
	if err == nil {
		err = s.fits(&msg)
	}
	if err != nil {
		return none, failed(brokers.ClassRejected, m.Topic, err)
	}
	return msg, nil
}

// settle takes a message's fate.
func (r *run) settle(o resolution) {
	i := o.index
	delete(r.flight, i)
	if o.again {
		r.ready = slices.Insert(r.ready, 0, i)
		return
	}
	r.results[i] = o.err
	r.open--
	next := r.next[i]
	if o.err == nil {
		if next >= 0 {
			r.ready = append(r.ready, next)
		}
		return
	}
	for ; next >= 0; next = r.next[next] {
		r.results[next] = brokers.ErrHeld
		r.open--
	}
}

// abandon takes the last answers and fails what is still in flight.
func (r *run) abandon(s *session, err error) {
	items := make([]*item, 0, len(r.flight))
	for _, it := range r.flight {
		items = append(items, it)
	}
	s.abandon(items, err)
	for len(r.flight) > 0 {
		r.settle(<-r.resolved)
	}
}

// fail gives every message without a result this one.
func (r *run) fail(err error) []error {
	for i := range r.results {
		if errors.Is(r.results[i], errOpen) {
			r.results[i] = err
		}
	}
	r.open = 0
	return r.results
}
