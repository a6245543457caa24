package brokertest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
)

// memoryHarness runs the suite on m.
func memoryHarness(m *brokertest.Memory) brokertest.Harness {
	return brokertest.Harness{
		Broker:       "memory",
		NewPublisher: func(*testing.T) brokers.Publisher { return m.Publisher() },
		NewSubscriber: func(_ *testing.T, topic brokertest.Topic) brokers.Subscriber {
			return m.Subscriber(topic.Group, topic.Name)
		},
		CreateTopic: func(_ *testing.T, topic brokertest.Topic) { m.CreateTopic(topic.Name, topic.Units, topic.MaxBytes) },
		Unroutable: func(t *testing.T) string {
			m.CreateTopic(t.Name(), 0, 0)
			return t.Name()
		},
		Stop:  func(*testing.T) { m.Stop() },
		Start: func(*testing.T) { m.Start() },
		Ahead: func(_ *testing.T, topic brokertest.Topic) int { return m.Ahead(topic.Group, topic.Name) },
	}
}

func TestMemory(t *testing.T) {
	m := brokertest.NewMemory(brokertest.MemoryConfig{DrainTimeout: brokertest.DrainTimeout})
	brokertest.Exercise(t, memoryHarness(m))
}

func TestMemoryKeepsWhatTestsAskFor(t *testing.T) {
	m := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 3, MaxBytes: 10})
	pub := m.Publisher()
	payload := []byte("12345")
	results := pub.Publish(t.Context(), []brokers.Message{
		{Topic: "t", Key: "a", ID: "1", Payload: payload},
		{Topic: "t", ID: "too large", Payload: make([]byte, 11)},
		{Topic: "t", Key: "b", ID: "2", Headers: map[string]string{"h": "v"}},
	})
	require.NoError(t, results[0])
	require.Equal(t, brokers.ClassRejected, brokers.ClassOf(results[1]))
	require.NoError(t, results[2])
	payload[0] = 'X'
	require.Equal(t, []brokers.Message{
		{Topic: "t", Key: "a", ID: "1", Payload: []byte("12345")},
		{Topic: "t", Key: "b", ID: "2", Headers: map[string]string{"h": "v"}},
	}, m.Log("t"))
	require.Empty(t, m.Log("unknown"))
	require.Equal(t, 2, m.Unacked("g", "t"))

	held := make(chan *brokers.Delivery, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- m.Subscriber("g", "t").Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) { held <- d })
	}()
	first, second := <-held, <-held
	require.Equal(t, 2, m.Ahead("g", "t"))
	require.False(t, first.Redelivered)
	require.NoError(t, first.Ack())
	require.Error(t, first.Ack(), "settled twice")
	require.Equal(t, 1, m.Unacked("g", "t"))

	m.Restart()
	again := <-held
	require.ErrorIs(t, second.Ack(), brokers.ErrStale)
	require.Equal(t, second.Message, again.Message)
	require.True(t, again.Redelivered)
	require.NoError(t, again.Ack())
	require.Zero(t, m.Unacked("g", "t"))
	cancel()
	require.NoError(t, <-done)
}

func TestMemoryRefusesUnknownTopics(t *testing.T) {
	m := brokertest.NewMemory(brokertest.MemoryConfig{})
	err := m.Subscriber("g", "nowhere").Subscribe(t.Context(), nil)
	require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err))
	require.ErrorContains(t, err, "nowhere")
}

// TestMemoryFreesBlockedHandles: a handle that has no room for a delivery is
// told by its context when the drain timeout is over.
func TestMemoryFreesBlockedHandles(t *testing.T) {
	m := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1, DrainTimeout: time.Millisecond})
	m.Publisher().Publish(t.Context(), []brokers.Message{{Topic: "t", ID: "1"}})
	ctx, cancel := context.WithCancel(t.Context())
	err := m.Subscriber("g", "t").Subscribe(ctx, func(ctx context.Context, _ *brokers.Delivery) {
		cancel()
		<-ctx.Done()
	})
	require.NoError(t, err)
}
