package brokertest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
)

// TestSkeleton runs the suite on the skeleton of docs/adapters.md, whose
// "server" is the in-memory broker.
func TestSkeleton(t *testing.T) {
	m := brokertest.NewMemory(brokertest.MemoryConfig{DrainTimeout: time.Millisecond})
	cfg := Config{
		MaxBytes:     brokertest.MaxBytes,
		DrainTimeout: brokertest.DrainTimeout,
		Dial: func(_ context.Context, group, topic string) (Session, error) {
			return dialMemory(m, group, topic), nil
		},
	}
	h := memoryHarness(m)
	h.Broker = "skeleton"
	h.NewPublisher = func(*testing.T) brokers.Publisher { return NewPublisher(cfg) }
	h.NewSubscriber = func(_ *testing.T, topic brokertest.Topic) brokers.Subscriber {
		return NewSubscriber(cfg, topic.Group, topic.Name)
	}
	h.CreateTopic = func(_ *testing.T, topic brokertest.Topic) { m.CreateTopic(topic.Name, 1, 0) }
	brokertest.Exercise(t, h)
}

// TestDocsShowTheSkeleton keeps docs/adapters.md and skeleton_test.go the same.
func TestDocsShowTheSkeleton(t *testing.T) {
	doc, err := os.ReadFile("../../docs/adapters.md")
	require.NoError(t, err)
	code, err := os.ReadFile("skeleton_test.go")
	require.NoError(t, err)
	_, body, _ := strings.Cut(string(code), ")\n\n") // without package and imports
	require.Contains(t, string(doc), body, "copy skeleton_test.go into docs/adapters.md")
}

type memorySession struct {
	pub    brokers.Publisher
	ctx    context.Context //nolint:containedctx // the connection's life
	broken context.CancelFunc
	ended  chan struct{}
	in     chan *brokers.Delivery

	mu   sync.Mutex
	tags []*brokers.Delivery
}

func dialMemory(m *brokertest.Memory, group, topic string) *memorySession {
	s := &memorySession{pub: m.Publisher(), in: make(chan *brokers.Delivery), ended: make(chan struct{})}
	s.ctx, s.broken = context.WithCancel(context.Background())
	go func() {
		defer close(s.ended)
		if topic == "" {
			return
		}
		_ = m.Subscriber(group, topic).Subscribe(s.ctx, func(ctx context.Context, d *brokers.Delivery) {
			context.AfterFunc(ctx, s.broken)
			select {
			case s.in <- d:
			case <-ctx.Done():
			}
		})
	}()
	return s
}

func (s *memorySession) Send(ctx context.Context, m brokers.Message) error {
	err := s.pub.Publish(ctx, []brokers.Message{m})[0]
	if err != nil && brokers.ClassOf(err) == brokers.ClassDestination {
		return errNoSuchTopic
	}
	return err
}

func (s *memorySession) Receive(ctx context.Context) (brokers.Message, uint64, error) {
	select {
	case <-ctx.Done():
		return brokers.Message{}, 0, ctx.Err()
	case <-s.ctx.Done():
		return brokers.Message{}, 0, errors.New("connection lost")
	case d := <-s.in:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tags = append(s.tags, d)
		return d.Message, uint64(len(s.tags)), nil
	}
}

func (s *memorySession) Ack(tag uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags[tag-1].Ack()
}

func (s *memorySession) Close() {
	s.broken()
	<-s.ended
}
