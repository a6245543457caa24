package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/outboxkit/outboxkit/brokers"
)

// Publisher publishes to RabbitMQ with publisher confirms. It is safe for
// concurrent use; calls share one connection and one window.
type Publisher struct {
	cfg      PublisherConfig
	badCfg   error
	dialer   dialer
	topo     *topology
	sessions shared[*session]
	stop     context.CancelFunc

	running   sync.WaitGroup // calls of Publish
	mu        sync.Mutex     // guards running.Add against Close
	closeOnce sync.Once
}

var _ brokers.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher. It does not connect: a service may start
// while RabbitMQ is away. A mistake in cfg, see [PublisherConfig.Validate], is
// the result of every Publish.
func NewPublisher(cfg PublisherConfig) *Publisher {
	p := &Publisher{cfg: cfg.withDefaults(), badCfg: cfg.Validate(), topo: newTopology(cfg.Declare)}
	p.dialer = dialer{url: cfg.URL, tls: cfg.TLS, files: cfg.TLSFiles, timeout: p.cfg.DialTimeout, client: cfg.Client}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.sessions = shared[*session]{ctx: ctx, open: p.open}
	return p
}

// open follows a session that has ended, if there was one.
func (p *Publisher) open(ctx context.Context) (*session, error) {
	suspects := 0
	if old := p.sessions.current; old != nil { // only open changes it
		// Its connection goes first: what it still carries is not overtaken.
		select {
		case <-old.done:
		case <-ctx.Done():
			return nil, brokers.ErrClosed
		}
		suspects = old.suspects
	}
	s, err := openSession(ctx, p, suspects)
	if err != nil {
		p.cfg.Logger.Warn("rabbitmq: cannot connect", "error", err)
		return nil, err
	}
	return s, nil
}

// Publish implements brokers.Publisher. It keeps no reference to msgs.
func (p *Publisher) Publish(ctx context.Context, msgs []brokers.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	r := newRun(p, msgs)
	if !p.enter() {
		return r.fail(unavailable(brokers.ErrClosed))
	}
	defer p.running.Done()
	switch {
	case p.badCfg != nil:
		return r.fail(unavailable(p.badCfg))
	case ctx.Err() != nil:
		return r.fail(unavailable(ctx.Err()))
	}
	r.do(ctx)
	return r.results
}

func (p *Publisher) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions.ctx.Err() != nil {
		return false
	}
	p.running.Add(1)
	return true
}

// Close implements brokers.Publisher. It waits until running calls of Publish
// have returned, which they do at once.
func (p *Publisher) Close() error {
	p.closeOnce.Do(func() {
		p.mu.Lock()
		p.stop()
		p.mu.Unlock()
		if s, ok := p.sessions.last(); ok {
			// The broker has what was sent before it agrees to close.
			s.shut(fmt.Errorf("not confirmed: %w", brokers.ErrClosed))
		}
	})
	p.running.Wait()
	return nil
}

// route returns where m goes.
func (p *Publisher) route(m *brokers.Message) destination {
	switch {
	case p.cfg.Route != nil:
		exchange, key := p.cfg.Route(m)
		return destination{exchange, key}
	case m.Key != "":
		return destination{p.cfg.Exchange, QueueName(m.Topic, m.Key, p.cfg.Queues)}
	default:
		// Without a key anywhere will do, but a repetition goes to the same place.
		return destination{p.cfg.Exchange, QueueName(m.Topic, m.ID, p.cfg.Queues)}
	}
}

// check returns why m can never be published to d, nil if nothing is known
// against it.
func (p *Publisher) check(m *brokers.Message, d destination) error {
	var err error
	switch {
	case m.Topic == "":
		err = errors.New("empty Message.Topic")
	case len(m.Payload) > p.cfg.MaxMessageBytes:
		err = fmt.Errorf("payload has %d bytes (PublisherConfig.MaxMessageBytes allows %d)",
			len(m.Payload), p.cfg.MaxMessageBytes)
	case len(d.routingKey) > maxShortString:
		err = fmt.Errorf("routing key %.40q… has %d bytes (AMQP allows %d)", d.routingKey, len(d.routingKey), maxShortString)
	case len(d.exchange) > maxShortString:
		err = fmt.Errorf("exchange %.40q… has %d bytes (AMQP allows %d)", d.exchange, len(d.exchange), maxShortString)
	default:
		return nil
	}
	return failed(brokers.ClassRejected, m.Topic, err)
}
