package brokertest_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
)

func ExampleMemory() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	broker := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 4})

	pub := broker.Publisher()
	results := pub.Publish(ctx, []brokers.Message{
		{Topic: "orders", Key: "order-1", ID: "1", Payload: []byte("placed")},
		{Topic: "orders", Key: "order-1", ID: "2", Payload: []byte("paid")},
	})
	fmt.Println(results)

	err := broker.Subscriber("billing", "orders").Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
		fmt.Println(d.Message.Key, string(d.Message.Payload), d.Ack())
		if d.Message.ID == "2" {
			cancel()
		}
	})
	fmt.Println(err, broker.Unacked("billing", "orders"))
	// Output:
	// [<nil> <nil>]
	// order-1 placed <nil>
	// order-1 paid <nil>
	// <nil> 0
}

func ExampleFaulty() {
	broker := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
	lost := &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("connection reset")}
	// The answer to the first call is lost, after the broker has taken the message.
	pub := brokertest.Faulty(broker.Publisher(), func(call int, _ brokers.Message) brokertest.Fault {
		if call == 0 {
			return brokertest.Fault{Err: lost, Published: true}
		}
		return brokertest.Fault{}
	})
	msgs := []brokers.Message{{Topic: "orders", ID: "1"}}
	fmt.Println(pub.Publish(context.Background(), msgs)[0])
	fmt.Println(pub.Publish(context.Background(), msgs)[0])
	fmt.Println(len(broker.Log("orders")), "copies published")
	// Output:
	// unavailable: connection reset
	// <nil>
	// 2 copies published
}
