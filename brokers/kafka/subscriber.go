package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

// Subscriber implements brokers.Subscriber for Kafka as a member of a consumer
// group. Subscribe may run once at a time.
type Subscriber struct {
	cfg    Config
	topics []string
	badCfg error

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // running Subscribe

	mu        sync.Mutex
	running   bool
	delivered map[topicPartition]int64 // highest offset handed over so far
}

var _ brokers.Subscriber = (*Subscriber)(nil)

type topicPartition struct {
	topic     string
	partition int32
}

// NewSubscriber returns a subscriber to topics. It does not connect. A mistake
// in cfg, see [Config.Validate], or no Group is the result of Subscribe.
func NewSubscriber(cfg Config, topics ...string) *Subscriber {
	s := &Subscriber{
		badCfg:    cfg.validateSubscriber(topics),
		cfg:       cfg.withDefaults(),
		topics:    topics,
		delivered: make(map[topicPartition]int64),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

const (
	// unknownTopicFor is how long a topic must be unknown until Subscribe gives
	// up: a cluster that is starting, or a topic being created, gets a chance.
	unknownTopicFor = 5 * time.Second
	// leaveTimeout is how long committing and leaving the group may take when the
	// broker does not answer.
	leaveTimeout = 10 * time.Second
	retryFirst   = 200 * time.Millisecond
	retryMax     = 5 * time.Second
)

// Subscribe implements brokers.Subscriber.
func (s *Subscriber) Subscribe(ctx context.Context, handle brokers.Handle) error {
	if s.badCfg != nil {
		return s.badCfg
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(nil) })()

	conf := s.cfg.client()
	// The connections outlive ctx: leaving the group and committing need them.
	linger, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	defer context.AfterFunc(ctx, func() {
		sleep(linger, s.cfg.drainTimeout(conf)+leaveTimeout)
		hangUp()
	})()
	dial(linger, conf, s.cfg.TLSFiles, nil)
	client, err := sarama.NewClient(s.cfg.Brokers, conf)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer func() { _ = client.Close() }() // nothing left to lose
	group, err := sarama.NewConsumerGroupFromClient(s.cfg.Group, client)
	if err != nil {
		return fmt.Errorf("kafka: consumer group %q: %w", s.cfg.Group, err)
	}
	errs := make(chan struct{})
	go func() { // ends when the group is closed
		defer close(errs)
		for err := range group.Errors() {
			s.report(err, cancel)
		}
	}()
	s.consume(ctx, cancel, group, conf, handle)
	if err := group.Close(); err != nil {
		s.cfg.Logger.Debug("kafka: leaving the consumer group", "group", s.cfg.Group, "err", err)
	}
	<-errs
	if fatal := new(permanentError); errors.As(context.Cause(ctx), &fatal) {
		return fatal
	}
	return nil
}

// Close implements brokers.Subscriber. It waits for Subscribe to return.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.stop()
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

func (s *Subscriber) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil:
		return brokers.ErrClosed
	case s.running:
		return errors.New("kafka: Subscribe is running already (make another subscriber; it will share the group)")
	}
	s.running = true
	s.wg.Add(1)
	return nil
}

func (s *Subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	s.wg.Done()
}

// consume runs one session of the group after the other until ctx ends.
func (s *Subscriber) consume(ctx context.Context, fail context.CancelCauseFunc, group sarama.ConsumerGroup, conf *sarama.Config, handle brokers.Handle) {
	var unknownSince time.Time
	pause := retryFirst
	for ctx.Err() == nil {
		session, restart := context.WithCancel(ctx)
		h := &groupHandler{
			subscriber: s, handle: handle, restart: restart,
			drain: s.cfg.drainTimeout(conf), progress: new(progress),
		}
		err := group.Consume(session, s.topics, h)
		restart()
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, sarama.ErrUnknownTopicOrPartition):
			if unknownSince.IsZero() {
				unknownSince = time.Now()
			}
			if time.Since(unknownSince) >= unknownTopicFor {
				fail(&permanentError{s.describe(err)})
				return
			}
		case isPermanent(err):
			fail(&permanentError{s.describe(err)})
			return
		default:
			unknownSince = time.Time{}
			if err != nil && session.Err() == nil {
				s.cfg.Logger.Warn("kafka: consumer group session failed, trying again", "group", s.cfg.Group, "topics", s.topics, "err", err)
			}
		}
		if err == nil && h.progress.made() {
			pause = retryFirst
		}
		if err == nil && !h.progress.released() {
			continue // an ordinary rebalance
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, retryMax)
	}
}

// report logs an error that the client found behind the scenes, or ends
// Subscribe because of it.
func (s *Subscriber) report(err error, fail context.CancelCauseFunc) {
	if isPermanent(err) {
		fail(&permanentError{s.describe(err)})
		return
	}
	s.cfg.Logger.Warn("kafka: consumer group", "group", s.cfg.Group, "err", err)
}

func (s *Subscriber) describe(err error) error {
	return fmt.Errorf("kafka: group %q, topics %q: %w", s.cfg.Group, s.topics, describe(err))
}

// permanentError ends Subscribe.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// isPermanent reports whether only a person can help.
func isPermanent(err error) bool {
	for _, code := range []error{
		sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
		sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism,
		sarama.ErrInvalidTopic, sarama.ErrInvalidGroupId, sarama.ErrOffsetOutOfRange,
		sarama.ErrInconsistentGroupProtocol, sarama.ErrInvalidSessionTimeout, sarama.ErrFencedInstancedId,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// redelivered notes that an offset is being delivered and reports whether this
// subscriber has delivered it before. Kafka itself does not know.
func (s *Subscriber) redelivered(tp topicPartition, offset int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.delivered[tp]; ok && offset <= last {
		return true
	}
	s.delivered[tp] = offset
	return false
}

// sleep pauses; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
