package rabbitmq_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// Publish two orders and consume them, over a queue that is declared on the way.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url := os.Getenv("OUTBOXKIT_AMQP_URL") // amqp://user:password@host:5672/

	pub := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: url, Declare: true})
	defer func() { _ = pub.Close() }()
	for i, err := range pub.Publish(ctx, []brokers.Message{
		{Topic: "example.orders", Key: "o-1", ID: "1", Source: "/shop", Type: "shop.order.placed", Payload: []byte("placed")},
		{Topic: "example.orders", Key: "o-1", ID: "2", Source: "/shop", Type: "shop.order.paid", Payload: []byte("paid")},
	}) {
		if err != nil {
			log.Fatalf("message %d: %s: %v", i, brokers.ClassOf(err), err)
		}
	}

	sub := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: url, Declare: true}, "example.orders")
	defer func() { _ = sub.Close() }()
	err := sub.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
		fmt.Printf("%s: %s\n", d.Message.Key, d.Message.Payload)
		if err := d.Ack(); err != nil {
			log.Print(err) // it will come again
		}
		if d.Message.ID == "2" {
			cancel()
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	// It prints
	// o-1: placed
	// o-1: paid
}

func TestExample(t *testing.T) {
	url := svctest.RabbitMQ(t)
	Example()
	withChannel(t, url, func(ch *amqp.Channel) {
		left, err := ch.QueueDelete("example.orders", false, false, false)
		require.NoError(t, err)
		require.Zero(t, left)
	})
}
