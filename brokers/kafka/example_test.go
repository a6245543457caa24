package kafka_test

import (
	"context"
	"fmt"
	"log"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
)

func Example() {
	cluster, err := kfake.NewCluster(kfake.SeedTopics(3, "orders")) // an imitation in this process
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	cfg := kafka.Config{
		Brokers: cluster.ListenAddrs(),
		Group:   "inventory",
		// Whatever the client can do can be set:
		Sarama: func(sc *sarama.Config) { sc.Producer.Compression = sarama.CompressionZSTD },
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	pub := kafka.NewPublisher(cfg)
	defer func() { _ = pub.Close() }()
	results := pub.Publish(ctx, []brokers.Message{
		{Topic: "orders", Key: "order-1", ID: "1", Payload: []byte("placed")},
		{Topic: "orders", Key: "order-1", ID: "2", Payload: []byte("paid")},
		{Topic: "typo", Key: "order-1", ID: "3"},
	})
	fmt.Println(results[0], results[1], brokers.ClassOf(results[2]))

	err = kafka.NewSubscriber(cfg, "orders").Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
		fmt.Println(d.Message.Key, string(d.Message.Payload), d.Ack())
		if d.Message.ID == "2" {
			cancel()
		}
	})
	fmt.Println(err)
	// Output:
	// <nil> <nil> destination
	// order-1 placed <nil>
	// order-1 paid <nil>
	// <nil>
}
