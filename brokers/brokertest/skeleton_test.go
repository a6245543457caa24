package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// Session is one connection to the broker, made from its client library with
// the library's own reconnecting switched off. Once a call has failed with
// anything but errNoSuchTopic, it is broken for good.
type Session interface {
	// Send returns when the broker has confirmed m.
	Send(ctx context.Context, m brokers.Message) error
	// Receive waits for the next message; tag counts from 1 within the session.
	Receive(ctx context.Context) (m brokers.Message, tag uint64, err error)
	// Ack settles one message of this session.
	Ack(tag uint64) error
	// Close gives what is not acknowledged back to the broker. Calls end.
	Close()
}

var errNoSuchTopic = errors.New("no such topic, or nobody reads it")

// Config configures Publisher and Subscriber.
type Config struct {
	// Dial connects; topic and group are empty for a publisher. Required.
	Dial func(ctx context.Context, group, topic string) (Session, error)
	// MaxBytes is the largest payload that the broker takes. Default: 1 MiB.
	MaxBytes int
	// DrainTimeout is how long a subscriber that leaves waits for its unsettled
	// deliveries. Default: 10 s.
	DrainTimeout time.Duration
}

// Publisher is a brokers.Publisher that sends one message at a time.
type Publisher struct {
	cfg   Config
	ctx   context.Context // ends with Close
	close context.CancelFunc

	mu      sync.Mutex // held while sending: a session is used by one call
	session Session    // nil when there is none
}

// NewPublisher connects when it is first used.
func NewPublisher(cfg Config) *Publisher {
	ctx, cancel := context.WithCancel(context.Background())
	return &Publisher{cfg: cfg, ctx: ctx, close: cancel}
}

// Publish implements brokers.Publisher.
func (p *Publisher) Publish(ctx context.Context, msgs []brokers.Message) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() // Close ends running calls

	results := make([]error, len(msgs))
	failed := map[[2]string]bool{} // by topic and key
	for i, m := range msgs {
		k := [2]string{m.Topic, m.Key}
		if failed[k] {
			results[i] = brokers.ErrHeld
			continue
		}
		results[i] = p.send(ctx, m)
		failed[k] = results[i] != nil && m.Key != ""
	}
	return results
}

func (p *Publisher) send(ctx context.Context, m brokers.Message) error {
	fail := func(class brokers.Class, err error) error {
		return &brokers.Error{Class: class, Topic: m.Topic, Err: err}
	}
	if p.ctx.Err() != nil {
		return brokers.ErrClosed
	}
	if len(m.Payload) > p.cfg.MaxBytes {
		return fail(brokers.ClassRejected, fmt.Errorf("payload of %d bytes, the limit is %d", len(m.Payload), p.cfg.MaxBytes))
	}
	err := ctx.Err()
	if err == nil && p.session == nil {
		p.session, err = p.cfg.Dial(ctx, "", "")
	}
	if err == nil {
		err = p.session.Send(ctx, m)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoSuchTopic):
		return fail(brokers.ClassDestination, err)
	}
	p.disconnect() // an answer to this message must not be taken for the next one's
	if p.ctx.Err() != nil {
		return brokers.ErrClosed
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = errors.Join(ctx.Err(), err)
	}
	return fail(brokers.ClassUnavailable, err)
}

func (p *Publisher) disconnect() {
	if p.session != nil {
		p.session.Close()
		p.session = nil
	}
}

// Close implements brokers.Publisher.
func (p *Publisher) Close() error {
	p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnect()
	return nil
}

// Subscriber is a brokers.Subscriber of one topic with one ordered unit.
type Subscriber struct {
	cfg          Config
	group, topic string
	ctx          context.Context // ends with Close
	close        context.CancelFunc
}

// NewSubscriber connects when Subscribe is called.
func NewSubscriber(cfg Config, group, topic string) *Subscriber {
	ctx, cancel := context.WithCancel(context.Background())
	return &Subscriber{cfg: cfg, group: group, topic: topic, ctx: ctx, close: cancel}
}

// Close implements brokers.Subscriber.
func (s *Subscriber) Close() error {
	s.close()
	return nil
}

// Subscribe implements brokers.Subscriber: one session after the other.
func (s *Subscriber) Subscribe(ctx context.Context, handle brokers.Handle) error {
	if s.ctx.Err() != nil {
		return brokers.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	for ctx.Err() == nil {
		session, err := s.cfg.Dial(ctx, s.group, s.topic)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond): // better: exponential, with jitter
			}
			continue
		}
		s.consume(ctx, session, handle)
	}
	return nil
}

// consume delivers what one session receives, until it breaks, a delivery is
// released or ctx ends. Then it waits for what is unsettled.
func (s *Subscriber) consume(ctx context.Context, session Session, handle brokers.Handle) {
	ours, end := context.WithCancel(context.WithoutCancel(ctx)) // the deliveries' context
	receiving, stop := context.WithCancel(ctx)
	u := &unit{session: session, stop: stop, settled: make(chan struct{}, 1)}
	drained := make(chan struct{})
	defer func() {
		u.expire() // from here on, acks are stale
		end()
		<-drained
		session.Close()
	}()
	go func() { // handle may be blocked when the time comes
		defer close(drained)
		<-receiving.Done()
		u.drain(ours, s.cfg.DrainTimeout)
		end()
	}()
	for receiving.Err() == nil {
		m, tag, err := session.Receive(receiving)
		if receiving.Err() != nil {
			break // received a moment too late: the next session gets it
		}
		if err != nil {
			end() // the connection is lost: nothing to wait for
			break
		}
		origin := brokers.Origin{Broker: "skeleton", Topic: s.topic}
		handle(ours, &brokers.Delivery{Message: m, Origin: origin, Settler: u.deliver(tag)})
	}
	stop()
	<-drained
}

// unit counts what a session has delivered and not settled.
type unit struct {
	session Session
	stop    context.CancelFunc
	settled chan struct{} // has a token after each settling

	mu        sync.Mutex
	stale     bool
	unsettled int
}

func (u *unit) deliver(tag uint64) brokers.Settler {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unsettled++
	return &settling{unit: u, tag: tag}
}

func (u *unit) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stale = true
}

func (u *unit) drain(ctx context.Context, atMost time.Duration) {
	timeout := time.After(atMost)
	for {
		u.mu.Lock()
		n := u.unsettled
		u.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-u.settled:
		case <-ctx.Done():
			return
		case <-timeout:
			return
		}
	}
}

type settling struct {
	unit *unit
	tag  uint64
	once sync.Once
}

// Ack implements brokers.Settler. It uses the session that made the delivery,
// never the current one.
func (d *settling) Ack() error {
	err := errors.New("settled before")
	d.once.Do(func() {
		d.unit.mu.Lock()
		defer d.unit.mu.Unlock()
		d.unit.settle()
		if err = brokers.ErrStale; !d.unit.stale && d.unit.session.Ack(d.tag) == nil {
			err = nil
		}
	})
	return err
}

// Release implements brokers.Settler: a new session begins with everything that
// is not acknowledged, in order.
func (d *settling) Release() {
	d.once.Do(func() {
		d.unit.mu.Lock()
		defer d.unit.mu.Unlock()
		d.unit.settle()
		d.unit.stop()
	})
}

func (u *unit) settle() {
	u.unsettled--
	select {
	case u.settled <- struct{}{}:
	default:
	}
}
