package rabbitmq_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// poison is the header of a message that the server itself refuses.
const poison = "poison"

// TestExercise runs the suite with an exchange and hash queues for each topic.
func TestExercise(t *testing.T) {
	server := svctest.OwnRabbitMQ(t)
	url := server.URL()
	topics := &topics{units: map[string]int{}}
	brokertest.Exercise(t, brokertest.Harness{
		Broker: "rabbitmq",
		NewPublisher: func(t *testing.T) brokers.Publisher {
			return rabbitmq.NewPublisher(rabbitmq.PublisherConfig{
				URL:             url,
				MaxMessageBytes: brokertest.MaxBytes,
				Route: func(m *brokers.Message) (string, string) {
					if m.Headers[poison] != "" {
						return m.Topic, poison // no queue is bound by this key
					}
					return m.Topic, rabbitmq.QueueName(m.Topic, m.Key, topics.get(m.Topic))
				},
			})
		},
		// The server gives it back and takes the next one of its key; what fails
		// before it is sent is tried in TestExerciseDefaults.
		Poison: func(m *brokers.Message) { m.Headers = map[string]string{poison: "yes"} },
		NewSubscriber: func(t *testing.T, topic brokertest.Topic) brokers.Subscriber {
			return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{
				URL: url, DrainTimeout: brokertest.DrainTimeout,
			}, rabbitmq.QueueNames(topic.Name, topics.get(topic.Name))...)
		},
		CreateTopic: func(t *testing.T, topic brokertest.Topic) {
			topics.set(topic.Name, topic.Units)
			withChannel(t, url, func(ch *amqp.Channel) {
				require.NoError(t, ch.ExchangeDeclare(topic.Name, "direct", true, false, false, false, nil))
				for _, queue := range rabbitmq.QueueNames(topic.Name, topic.Units) {
					declareQuorum(t, ch, queue, nil)
					require.NoError(t, ch.QueueBind(queue, queue, topic.Name, false, nil))
				}
			})
		},
		Unroutable: func(t *testing.T) string {
			name := svctest.Unique("unbound")
			withChannel(t, url, func(ch *amqp.Channel) {
				require.NoError(t, ch.ExchangeDeclare(name, "fanout", true, false, false, false, nil))
			})
			return name
		},
		Stop:  func(t *testing.T) { require.NoError(t, server.Stop(context.Background())) },
		Start: func(t *testing.T) { require.NoError(t, server.Start(context.Background())) },
		Ahead: func(t *testing.T, topic brokertest.Topic) int {
			out, err := server.Ctl(t.Context(), "-q", "list_queues", "name", "messages_unacknowledged")
			require.NoError(t, err)
			return unacknowledged(t, out, topic.Name)
		},
	})
}

// TestExerciseDefaults runs it with the default mapping, one queue for a topic,
// declared by publisher and subscriber.
func TestExerciseDefaults(t *testing.T) {
	url := svctest.RabbitMQ(t)
	brokertest.Exercise(t, brokertest.Harness{
		Broker: "rabbitmq",
		NewPublisher: func(t *testing.T) brokers.Publisher {
			return rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: url, MaxMessageBytes: brokertest.MaxBytes})
		},
		NewSubscriber: func(t *testing.T, topic brokertest.Topic) brokers.Subscriber {
			return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{
				URL: url, DrainTimeout: brokertest.DrainTimeout, Declare: true,
			}, topic.Name)
		},
		CreateTopic: func(t *testing.T, topic brokertest.Topic) {
			withChannel(t, url, func(ch *amqp.Channel) { declareQuorum(t, ch, topic.Name, nil) })
		},
		Without: map[string]string{
			"Unroutable": "an unknown topic is unroutable here",
			"Stop":       "the server is shared",
			"Ahead":      "see TestExercise",
		},
	})
}

// topics remembers how many queues a topic has.
type topics struct {
	mu    sync.Mutex
	units map[string]int
}

func (t *topics) set(name string, units int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.units[name] = units
}

func (t *topics) get(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.units[name]
}

// unacknowledged adds up the topic's queues in what rabbitmqctl printed.
func unacknowledged(t *testing.T, list, topic string) int {
	t.Helper()
	sum := 0
	for line := range strings.Lines(list) {
		name, count, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(name, topic+".") {
			n, err := strconv.Atoi(count)
			require.NoError(t, err, line)
			sum += n
		}
	}
	return sum
}

// withChannel runs f on a channel of a connection of its own.
func withChannel(t testing.TB, url string, f func(*amqp.Channel)) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	f(ch)
}

// declareQuorum declares what Declare would, and deletes it at the end.
func declareQuorum(t testing.TB, ch *amqp.Channel, name string, more amqp.Table) {
	t.Helper()
	args := amqp.Table{"x-queue-type": "quorum", "x-single-active-consumer": true}
	for k, v := range more {
		args[k] = v
	}
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	require.NoError(t, err)
}

// newPublisher returns a publisher that is closed at the end.
func newPublisher(t testing.TB, cfg rabbitmq.PublisherConfig) *rabbitmq.Publisher {
	t.Helper()
	p := rabbitmq.NewPublisher(cfg)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

const patience = 30 * time.Second
