package rabbitmq

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/planted"
)

const (
	// fenceTimeout is how long the broker may take to say that it has read all.
	fenceTimeout = 250 * time.Millisecond
	// blockedGrace is how long messages that were sent before the broker blocked
	// the connection may still be confirmed.
	blockedGrace = 500 * time.Millisecond
)

// session is the life of one confirm channel, with a connection of its own.
// Every message in flight belongs to one session and is resolved by it: what an
// older session's broker says later is not heard by anybody.
type session struct {
	link    *link
	ch      *amqp.Channel
	timeout time.Duration // of a confirmation
	topo    *topology

	closed  chan *amqp.Error   // the channel is over
	blocks  chan amqp.Blocking // the broker stops or starts reading
	returns chan amqp.Return   // holds more than can be in flight: never full

	tokens chan struct{} // one for each message that may be sent now
	dead   chan struct{} // closed when all is resolved
	done   chan struct{} // closed when the connection is gone too

	sending  sync.Mutex // one user of ch at a time: the client mixes up their frames
	awaiting sync.WaitGroup

	mu       sync.Mutex
	flight   map[*item]struct{} // sent, not resolved
	ended    bool
	blocked  error     // why the broker does not read, nil if it does
	cause    error     // why we dropped the connection, nil if we did not
	lastAck  time.Time // when the broker last confirmed anything
	suspects int       // so many more messages to send one at a time
}

// item is a message in flight.
type item struct {
	dest    destination
	id      string
	topic   string
	sent    time.Time
	conf    *amqp.DeferredConfirmation // nil until the client has taken it
	back    *amqp.Return               // the broker gave it back
	resolve func(outcome)              // called once, must not block
}

// outcome is the fate of an item.
type outcome struct {
	again bool  // not decided: send it once more
	err   error // nil: confirmed
}

// openSession connects. A session with suspects sends that many messages one at
// a time, to find the one that made the broker close the channel.
func openSession(ctx context.Context, p *Publisher, suspects int) (*session, error) {
	l, err := p.dialer.dial(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{
		link:     l,
		timeout:  p.cfg.ConfirmTimeout,
		topo:     p.topo,
		closed:   make(chan *amqp.Error, 1),
		blocks:   make(chan amqp.Blocking, 8),
		returns:  make(chan amqp.Return, p.cfg.Window+1),
		tokens:   make(chan struct{}, p.cfg.Window),
		dead:     make(chan struct{}),
		done:     make(chan struct{}),
		flight:   make(map[*item]struct{}, p.cfg.Window),
		suspects: suspects,
	}
	err = l.call(p.cfg.DialTimeout, func() error {
		l.conn.NotifyBlocked(s.blocks)
		if s.ch, err = l.conn.Channel(); err != nil {
			return err
		}
		s.ch.NotifyClose(s.closed)
		if !planted.Is(planted.NoReturnListener) {
			s.ch.NotifyReturn(s.returns)
		}
		return s.ch.Confirm(false)
	})
	if err != nil {
		l.close()
		return nil, fmt.Errorf("open a confirm channel: %w", err)
	}
	s.tokens <- struct{}{}
	if suspects == 0 {
		s.widen()
	}
	go s.watch()
	return s, nil
}

// widen fills the window, in which there is one token.
func (s *session) widen() {
	for range cap(s.tokens) - 1 {
		s.tokens <- struct{}{}
	}
}

func (s *session) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended && !s.ch.IsClosed()
}

// publish sends it; the caller holds a token. An error means that it was not
// sent and that it is not in flight.
func (s *session) publish(it *item, msg amqp.Publishing) error {
	s.mu.Lock()
	if s.blocked != nil || s.ended {
		defer s.mu.Unlock()
		s.tokens <- struct{}{}
		return cmp.Or(s.blocked, errEnded)
	}
	it.sent = time.Now()
	s.flight[it] = struct{}{}
	s.awaiting.Add(1)
	s.mu.Unlock()

	s.sending.Lock()
	conf, err := s.ch.PublishWithDeferredConfirm(it.dest.exchange, it.dest.routingKey, true, false, msg)
	s.sending.Unlock()
	if err != nil {
		s.awaiting.Done()
		return nil //nolint:nilerr // the channel is over: watch resolves it with the rest
	}
	s.mu.Lock()
	it.conf = conf
	s.mu.Unlock()
	// Each on its own, not all in the order of their tags: a queue that never
	// confirms must not hold up the others.
	go s.await(it, conf)
	return nil
}

// await resolves an item when the broker has confirmed it.
func (s *session) await(it *item, conf *amqp.DeferredConfirmation) {
	defer s.awaiting.Done()
	<-conf.Done()
	if !conf.Acked() && s.ch.IsClosed() {
		return // not a nack: the client gives up, watch resolves it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastAck = time.Now()
	s.takeReturns()
	s.settle(it, s.verdict(it))
}

// takeReturns marks what the broker gave back. The broker sends a message back
// before it confirms it, and the client reads both in one goroutine: once a
// confirmation has been seen, its return is here.
func (s *session) takeReturns() {
	for {
		select {
		case r, ok := <-s.returns:
			if !ok {
				s.returns = nil
				return
			}
			// Messages with the same id and destination cannot be told apart: failing
			// all of them loses none.
			for it := range s.flight {
				if it.id == r.MessageId && it.dest == (destination{r.Exchange, r.RoutingKey}) {
					it.back = &r
				}
			}
		default:
			return
		}
	}
}

// verdict is the outcome of an item that the broker has confirmed or refused.
func (s *session) verdict(it *item) outcome {
	switch {
	case it.back != nil:
		return outcome{err: failed(brokers.ClassDestination, it.topic, returned(it.back))}
	case !it.conf.Acked():
		// Other queues take messages: this is the topic's matter, not the broker's.
		return outcome{err: failed(brokers.ClassDestination, it.topic, errNack)}
	}
	return outcome{}
}

// settle resolves an item, once, and makes room for the next.
func (s *session) settle(it *item, o outcome) {
	if _, ok := s.flight[it]; !ok {
		return
	}
	delete(s.flight, it)
	s.tokens <- struct{}{} // never blocks: it had one
	if s.suspects > 0 && !s.ended {
		if s.suspects--; s.suspects == 0 {
			s.widen()
		}
	}
	it.resolve(o)
}

// abandon resolves items whose caller has gone.
func (s *session) abandon(items []*item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeReturns() // or they would be taken for those of a later attempt
	for _, it := range items {
		s.settle(it, outcome{err: err})
	}
}

// fence makes sure that nothing of what was sent is still on its way: the broker
// has read it all, or the connection is dropped because of cause.
func (s *session) fence(cause error) bool {
	timer := time.AfterFunc(fenceTimeout, func() { s.abort(cause) })
	defer timer.Stop()
	s.sending.Lock() // given free when the connection is dropped
	defer s.sending.Unlock()
	// Any request does: a channel is served in order.
	return s.ch.Qos(0, 0, false) == nil
}

// abort drops the connection because of cause.
func (s *session) abort(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	s.mu.Unlock()
	s.link.abort()
}

// watch owns the session's end.
func (s *session) watch() {
	defer close(s.done)
	tick := time.NewTicker(max(s.timeout/10, time.Millisecond))
	defer tick.Stop()
	var grace <-chan time.Time
	for {
		select {
		case e := <-s.closed:
			s.end(e)
			s.link.close()
			s.awaiting.Wait()
			return
		case b, ok := <-s.blocks:
			if !ok {
				s.blocks = nil
				continue
			}
			grace = s.block(b)
		case <-grace:
			s.giveUpBlocked()
		case <-tick.C:
			s.expire()
		}
	}
}

// block notes whether the broker reads.
func (s *session) block(b amqp.Blocking) (grace <-chan time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !b.Active {
		s.blocked = nil
		return nil
	}
	s.blocked = failed(brokers.ClassUnavailable, "", fmt.Errorf("the broker blocks publishers: %s", b.Reason))
	return time.After(blockedGrace)
}

// giveUpBlocked drops the connection if there are messages on it that the broker
// does not read: they must not be published when their callers have gone.
func (s *session) giveUpBlocked() {
	s.mu.Lock()
	err, waiting := s.blocked, len(s.flight) > 0
	s.mu.Unlock()
	if err != nil && waiting {
		s.abort(err)
	}
}

// fits returns nil if the broker takes the message's headers.
func (s *session) fits(msg *amqp.Publishing) error {
	limit := s.link.conn.Config.FrameSize
	if n := headerBytes(msg); limit > 0 && n > limit {
		return fmt.Errorf("headers have %d bytes (the connection's frame size allows %d)", n, limit)
	}
	return nil
}

// shut ends the session politely and waits until it is gone.
func (s *session) shut(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	s.mu.Unlock()
	s.link.close()
	<-s.done
}
