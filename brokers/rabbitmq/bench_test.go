package rabbitmq_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// BenchmarkPublish compares the publisher, in calls of 2,000 messages with 300
// bytes each, with the bare client that pipelines its confirms. All go to one
// quorum queue.
func BenchmarkPublish(b *testing.B) {
	const perCall = 2_000
	url := svctest.RabbitMQ(b)
	batch := func(queue string, keys int) []brokers.Message {
		msgs := make([]brokers.Message, perCall)
		for i := range msgs {
			msgs[i] = message(queue, "", i)
			msgs[i].Payload = make([]byte, 300)
			if keys > 0 {
				msgs[i].Key = "key-" + strconv.Itoa(i%keys)
			}
		}
		return msgs
	}
	for _, keys := range []int{0, 1_000, 100, 10, 1} {
		name := fmt.Sprintf("keys=%d", keys)
		if keys == 0 {
			name = "no_keys"
		}
		b.Run(name, func(b *testing.B) {
			queue := newQueue(b, url, nil)
			p := newPublisher(b, rabbitmq.PublisherConfig{URL: url})
			msgs := batch(queue, keys)
			requireConfirmed(b, p.Publish(context.Background(), msgs[:1]))
			n := 0
			for b.Loop() {
				requireConfirmed(b, p.Publish(context.Background(), msgs))
				n += len(msgs)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
	for _, window := range []int{500, 1} {
		b.Run(fmt.Sprintf("bare_client_window=%d", window), func(b *testing.B) {
			queue := newQueue(b, url, nil)
			msgs := batch(queue, 0)
			withChannel(b, url, func(ch *amqp.Channel) {
				require.NoError(b, ch.Confirm(false))
				n := 0
				for b.Loop() {
					require.NoError(b, pipeline(ch, msgs, window))
					n += len(msgs)
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
			})
		})
	}
}

// pipeline publishes with the same headers and the order promise of nobody.
func pipeline(ch *amqp.Channel, msgs []brokers.Message, window int) error {
	pending := make(chan *amqp.DeferredConfirmation, window-1)
	done := make(chan error, 1)
	go func() {
		for conf := range pending {
			if !conf.Wait() {
				done <- amqp.ErrClosed
				return
			}
		}
		done <- nil
	}()
	for i := range msgs {
		m := &msgs[i]
		conf, err := ch.PublishWithDeferredConfirm("", m.Topic, true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: m.ID, Type: m.Type, Body: m.Payload,
			Headers: amqp.Table{
				"cloudEvents:specversion": "1.0", "cloudEvents:id": m.ID,
				"cloudEvents:source": m.Source, "cloudEvents:type": m.Type,
			},
		})
		if err != nil {
			return err
		}
		if window == 1 {
			conf.Wait()
			continue
		}
		pending <- conf
	}
	close(pending)
	return <-done
}
