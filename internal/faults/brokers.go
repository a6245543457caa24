package faults

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// topicMaxBytes is what Kafka's topics take: an order of kindLarge is more.
const topicMaxBytes = 32 << 10

// startKafka starts a broker that each process reaches, and is told to reach,
// through its own link. Those of processes[i] forward to listener i.
func (w *world) startKafka(ctx context.Context, processes []string) (err error) {
	var cfg kafka.Config
	for _, p := range processes {
		l := kafka.Listener{Advertised: w.address[linkName(p, "kafka")]}
		if l.Port, err = proc.FreePort(); err != nil {
			return err
		}
		cfg.Listeners = append(cfg.Listeners, l)
	}
	if w.kafka, err = kafka.Start(ctx, cfg); err != nil {
		return err
	}
	for i, p := range processes {
		if err := w.links.byName[linkName(p, "kafka")].retarget(proc.Address(cfg.Listeners[i].Port)); err != nil {
			return err
		}
	}
	admin, err := sarama.NewClusterAdmin(w.kafka.Brokers(), nil)
	if err != nil {
		return err
	}
	limit := fmt.Sprint(topicMaxBytes)
	for _, topic := range []string{topicOrders, topicReserved} {
		detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{"max.message.bytes": &limit}}
		if err := admin.CreateTopic(topic, detail, false); err != nil {
			return errors.Join(err, admin.Close())
		}
	}
	return admin.Close()
}

// RabbitMQ: the relays' exchange hands each routing key to a fanout of its own,
// which fills the queue and the log. So what cannot be routed is in neither.
const (
	exchange = "faults"
	// A quorum queue that is read at the end, and no stream: that one lost confirmed
	// records in a restart of the broker (3.10).
	logQueue = "faults.log"
)

func fanout(queue string) string { return exchange + "." + queue }

func queues() []string {
	return append(rabbitmq.QueueNames(topicOrders, queuesPerTopic), rabbitmq.QueueNames(topicBilled, queuesPerTopic)...)
}

// onRabbitMQ runs f on a channel of its own, past all links.
func (w *world) onRabbitMQ(f func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(w.rabbitMQ.URL())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what was done has been answered
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}

func (w *world) declareRabbitMQ() error {
	return w.onRabbitMQ(func(ch *amqp.Channel) error {
		errs := []error{ch.ExchangeDeclare(exchange, amqp.ExchangeDirect, true, false, false, false, nil)}
		_, err := ch.QueueDeclare(logQueue, true, false, false, false, amqp.Table{"x-queue-type": "quorum", "x-max-in-memory-length": 0})
		errs = append(errs, err)
		for _, q := range queues() {
			_, err := ch.QueueDeclare(q, true, false, false, false, amqp.Table{"x-queue-type": "quorum", "x-single-active-consumer": true})
			errs = append(errs, err,
				ch.ExchangeDeclare(fanout(q), amqp.ExchangeFanout, true, false, false, false, nil),
				ch.QueueBind(q, "", fanout(q), false, nil),
				ch.QueueBind(logQueue, "", fanout(q), false, nil),
				ch.ExchangeBind(fanout(q), q, exchange, false, nil))
		}
		return errors.Join(errs...)
	})
}
