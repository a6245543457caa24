package main

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
)

type rabbitBroker struct{ url string }

func (b *rabbitBroker) address() string { return host(b.url) }
func (b *rabbitBroker) relay(s *spec)   { s.AMQP = b.url }

// topic declares a quorum queue.
func (b *rabbitBroker) topic(context.Context) (string, error) {
	name := "bench-" + rand.Text()
	conn, err := amqp.Dial(b.url)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return "", err
	}
	_, err = ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	return name, err
}

// bestWindow is how many unconfirmed messages serve the plain client best.
const bestWindow = 500

// client is the reference: one channel, confirms and mandatory, a window of
// unconfirmed messages. It does not look at returns and promises no order after
// a failure.
func (b *rabbitBroker) client(ctx context.Context, msgs []brokers.Message) (float64, error) {
	conn, err := amqp.Dial(b.url)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	if err := ch.Confirm(false); err != nil {
		return 0, err
	}
	began := time.Now()
	pending := make(chan *amqp.DeferredConfirmation, bestWindow)
	confirmed := make(chan error, 1)
	go func() {
		for c := range pending {
			if ok, err := c.WaitContext(ctx); err != nil || !ok {
				confirmed <- errors.Join(errors.New("plain client: not confirmed"), err)
				return
			}
		}
		confirmed <- nil
	}()
	for i := range msgs {
		c, err := ch.PublishWithDeferredConfirm("", msgs[i].Topic, true, false, publishing(&msgs[i]))
		if err != nil {
			return 0, err
		}
		select {
		case pending <- c:
		case err := <-confirmed:
			return 0, err
		}
	}
	close(pending)
	if err := <-confirmed; err != nil {
		return 0, err
	}
	return time.Since(began).Seconds(), nil
}

func publishing(m *brokers.Message) amqp.Publishing {
	headers := amqp.Table{"cloudEvents:partitionkey": m.Key}
	for _, a := range attributes(m, "cloudEvents:") {
		headers[a[0]] = a[1]
	}
	return amqp.Publishing{
		DeliveryMode: amqp.Persistent, ContentType: m.ContentType, MessageId: m.ID, Type: m.Type, Headers: headers, Body: m.Payload,
	}
}
