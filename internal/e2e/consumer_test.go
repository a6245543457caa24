package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os/signal"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

// consumerSpec is what a consumer process is told.
type consumerSpec struct {
	Database string
	Topic    string
	Kafka    []string // either these
	RabbitMQ string   // or this
	Registry string   // "" = single-object encoding
}

// consume is the consumer process: it records every effect in the order in which
// it happens, and ends on SIGTERM.
func consume(specJSON string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var spec consumerSpec
	if err := json.Unmarshal([]byte(specJSON), &spec); err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, spec.Database)
	if err != nil {
		return err
	}
	defer pool.Close()
	orderPlacedV1 := orderPlacedType(spec.Topic)
	from := spec.subscriber()
	wire, err := spec.wire(orderPlacedV1.Codec.Schema())
	if err != nil {
		return err
	}
	in, err := inbox.New(pool, inbox.Config{Consumer: "inventory", From: from, Wire: wire})
	if err != nil {
		return err
	}
	inbox.On(in, orderPlacedV1, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderPlaced]) error {
		_, err := tx.Exec(ctx, `INSERT INTO effects (user_id, n, event_id) VALUES ($1, $2, $3)`, e.Data.UserID, e.Data.N, e.ID)
		return err
	})
	return errors.Join(in.Run(ctx), from.Close())
}

func (s consumerSpec) subscriber() brokers.Subscriber {
	if s.RabbitMQ != "" {
		return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: s.RabbitMQ, Declare: true}, s.Topic)
	}
	return kafka.NewSubscriber(kafka.Config{Brokers: s.Kafka, Group: "inventory", Sarama: func(c *sarama.Config) {
		// A killed member holds its partitions until its session ends: the broker's minimum.
		c.Consumer.Group.Session.Timeout = 6 * time.Second
		c.Consumer.Group.Heartbeat.Interval = time.Second
	}}, s.Topic)
}

func (s consumerSpec) wire(known event.Schema) (event.WireFormat, error) {
	if s.Registry == "" {
		return avro.SingleObject(known), nil
	}
	client, err := registry.New(registry.Config{URL: s.Registry})
	if err != nil {
		return nil, err
	}
	return registry.Confluent(client), nil
}
