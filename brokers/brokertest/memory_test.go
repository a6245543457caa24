package brokertest_test

import (
	"testing"

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
