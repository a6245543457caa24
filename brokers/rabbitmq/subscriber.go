package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/brokers"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Subscriber consumes queues, each one ordered unit with a channel of its own.
// It is safe for concurrent use.
type Subscriber struct {
	cfg    SubscriberConfig
	badCfg error
	queues []string
	links  shared[*link]
	ctx    context.Context // ends when the subscriber is closed
	stop   context.CancelFunc

	running   sync.WaitGroup // calls of Subscribe
	mu        sync.Mutex     // guards running.Add against Close
	closeOnce sync.Once
}

var _ brokers.Subscriber = (*Subscriber)(nil)

// NewSubscriber returns a subscriber of queues. It does not connect. A mistake in
// cfg, see [SubscriberConfig.Validate], is the result of Subscribe.
func NewSubscriber(cfg SubscriberConfig, queues ...string) *Subscriber {
	s := &Subscriber{cfg: cfg.withDefaults(), badCfg: cfg.Validate(), queues: queues}
	if len(queues) == 0 {
		s.badCfg = errors.Join(s.badCfg, errors.New("rabbitmq: NewSubscriber without queues (name at least one)"))
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	d := dialer{url: cfg.URL, tls: cfg.TLS, files: cfg.TLSFiles, timeout: s.cfg.DialTimeout, client: cfg.Client}
	// Deliveries are settled over the link after ctx has ended: Close ends it.
	s.links = shared[*link]{ctx: s.ctx, open: d.dial}
	return s
}

// Subscribe implements brokers.Subscriber; the ordered unit is a queue. When a
// connection is lost its deliveries stop being ours at once: their contexts end
// and settling them does nothing, because the broker has given them to the next
// consumer already. The same holds for all deliveries of a queue of which one is
// released.
func (s *Subscriber) Subscribe(ctx context.Context, handle brokers.Handle) error {
	if s.badCfg != nil {
		return s.badCfg
	}
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return brokers.ErrClosed
	}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	group, ctx := errgroup.WithContext(ctx)
	all := &share{queues: s.queues, links: &s.links, log: s.cfg.Logger, units: make(map[*unit]struct{})}
	for _, queue := range s.queues {
		group.Go(func() error { return s.consume(ctx, queue, all, handle) })
	}
	if s.cfg.Declare && len(s.queues) > 1 {
		group.Go(func() error {
			all.run(ctx)
			return nil
		})
	}
	return group.Wait()
}

// Close implements brokers.Subscriber. It waits until Subscribe has returned: do
// not call it from handle.
func (s *Subscriber) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.stop()
		s.mu.Unlock()
		s.running.Wait()
		if l, ok := s.links.last(); ok {
			l.close()
		}
	})
	return nil
}

// consume keeps consuming a queue until ctx ends or an error is permanent.
func (s *Subscriber) consume(ctx context.Context, queue string, all *share, handle brokers.Handle) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.Multiplier = firstRetry, lastRetry, 2
	for refused := 0; ; {
		progress, err := s.session(ctx, queue, all, handle)
		if refused++; !suspected(err) {
			refused = 0
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case permanent(err), refused == maxSuspected:
			return fmt.Errorf("consume queue %q: %w", queue, err)
		case progress:
			wait.Reset()
		}
		pause := wait.NextBackOff()
		if !errors.Is(err, errReleased) {
			s.cfg.Logger.Warn("rabbitmq: consuming again", "queue", queue, "error", err, "in", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// session consumes a queue over one channel. It reports whether anything was
// acknowledged, and why it ended.
func (s *Subscriber) session(ctx context.Context, queue string, all *share, handle brokers.Handle) (progress bool, err error) {
	l, err := s.links.get(ctx)
	if err != nil {
		return false, err
	}
	if s.cfg.Declare {
		if err := ensureQueue(l, queue); err != nil {
			return false, err
		}
	}
	u := &unit{queue: queue, link: l, drainTimeout: s.cfg.DrainTimeout}
	deliveries, err := u.open(ctx, s.cfg.Prefetch)
	if err != nil {
		return false, err
	}
	all.add(u)
	defer all.remove(u)
	err = u.run(ctx, deliveries, handle)
	return u.progress(), err
}

// open starts consuming.
func (u *unit) open(ctx context.Context, prefetch int) (deliveries <-chan amqp.Delivery, err error) {
	err = u.link.call(callTimeout, func() error {
		if u.ch, err = u.link.conn.Channel(); err != nil {
			return err
		}
		u.closed = u.ch.NotifyClose(make(chan *amqp.Error, 1))
		u.cancelled = u.ch.NotifyCancel(make(chan string, 1))
		if err = u.ch.Qos(prefetch, 0, false); err != nil {
			return err
		}
		deliveries, err = u.ch.Consume(u.queue, "", false, false, false, false, nil)
		return err
	})
	if err != nil {
		if u.ch != nil {
			_ = u.link.call(closeTimeout, u.ch.Close) // the error that counts is err
		}
		return nil, err
	}
	u.unsettled = make(map[uint64]struct{}, prefetch)
	u.released = make(chan struct{})
	u.settled = make(chan struct{}, 1)
	u.ctx, u.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return deliveries, nil
}
