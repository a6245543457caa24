package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
)

// broker is where a run's messages go. The services are the same with either.
type broker struct {
	kafka  []string
	amqp   string
	prefix string // of topics and groups: runs may share a broker
}

func (b *broker) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&b.kafka, "kafka", nil, "bootstrap addresses of a Kafka (default: one in this process)")
	cmd.Flags().StringVar(&b.amqp, "amqp", "", "URL of a RabbitMQ, in place of Kafka")
	cmd.MarkFlagsMutuallyExclusive("kafka", "amqp")
}

func (b broker) args() (args []string) {
	args = []string{"--prefix", b.prefix}
	if b.amqp != "" {
		return append(args, "--amqp", b.amqp)
	}
	for _, address := range b.kafka {
		args = append(args, "--kafka", address)
	}
	return args
}

// topic is the broker's name of a topic.
func (b broker) topic(name string) string { return b.prefix + name }

func (b broker) publisher(log *slog.Logger) brokers.Publisher {
	if b.amqp != "" {
		return rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: b.amqp, Declare: true, Logger: log})
	}
	return kafka.NewPublisher(kafka.Config{Brokers: b.kafka, Logger: log})
}

func (b broker) subscriber(group, topic string, log *slog.Logger) brokers.Subscriber {
	if b.amqp != "" {
		return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: b.amqp, Declare: true, Logger: log}, b.topic(topic))
	}
	return kafka.NewSubscriber(kafka.Config{
		Brokers: b.kafka, Group: b.prefix + group, Logger: log,
		Sarama: func(c *sarama.Config) {
			// A killed member holds its partitions until its session ends: the least
			// that Kafka allows.
			c.Consumer.Group.Session.Timeout = 6 * time.Second
			c.Consumer.Group.Heartbeat.Interval = time.Second
		},
	}, b.topic(topic))
}

const partitions = 4

// create makes Kafka's topics; RabbitMQ's queues are declared by those who use
// them.
func (b broker) create() error {
	if b.amqp != "" {
		return nil
	}
	return b.admin(func(admin sarama.ClusterAdmin, topic string) error {
		return admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false)
	})
}

// remove deletes topics or queues with all that is in them.
func (b broker) remove() error {
	if b.amqp == "" {
		return b.admin(func(admin sarama.ClusterAdmin, topic string) error { return admin.DeleteTopic(topic) })
	}
	conn, err := amqp.Dial(b.amqp)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	for _, name := range []string{events.Drones, events.Deliveries} {
		if _, deleteErr := ch.QueueDelete(b.topic(name), false, false, false); deleteErr != nil {
			err = errors.Join(err, deleteErr)
		}
	}
	return err
}

func (b broker) admin(do func(admin sarama.ClusterAdmin, topic string) error) error {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(b.kafka, cfg)
	if err != nil {
		return err
	}
	for _, name := range []string{events.Drones, events.Deliveries} {
		err = errors.Join(err, do(admin, b.topic(name)))
	}
	return errors.Join(err, admin.Close())
}
