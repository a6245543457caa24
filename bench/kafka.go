package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

type kafkaBroker struct{ brokers []string }

const partitions = 12

func (b *kafkaBroker) address() string { return b.brokers[0] }
func (b *kafkaBroker) relay(s *spec)   { s.Kafka = b.brokers }

func (b *kafkaBroker) topic(context.Context) (string, error) { return b.topicOf(partitions) }

func (b *kafkaBroker) topicOf(partitions int32) (string, error) {
	admin, err := sarama.NewClusterAdmin(b.brokers, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = admin.Close() }()
	name := "bench-" + rand.Text()
	return name, admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false)
}

// client is the reference: sarama's idempotent asynchronous producer as it comes.
// It promises no order after a failure.
func (b *kafkaBroker) client(ctx context.Context, msgs []brokers.Message) (float64, error) {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	c.Net.MaxOpenRequests = 1
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Compression = sarama.CompressionSnappy
	c.Producer.Partitioner = sarama.NewMurmur2Partitioner
	c.Producer.Return.Successes = true
	p, err := sarama.NewAsyncProducer(b.brokers, c)
	if err != nil {
		return 0, err
	}
	defer func() { _ = p.Close() }()
	began := time.Now()
	go func() {
		for i := range msgs { // from the same values that the relay's publisher gets
			p.Input() <- producerMessage(&msgs[i])
		}
	}()
	for range msgs {
		select {
		case <-p.Successes():
		case e := <-p.Errors():
			return 0, fmt.Errorf("plain client: %w", e)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return time.Since(began).Seconds(), nil
}

func producerMessage(m *brokers.Message) *sarama.ProducerMessage {
	out := &sarama.ProducerMessage{Topic: m.Topic, Key: sarama.StringEncoder(m.Key), Value: sarama.ByteEncoder(m.Payload), Timestamp: m.Time}
	for _, a := range append(attributes(m, "ce_"), [2]string{"content-type", m.ContentType}) {
		out.Headers = append(out.Headers, sarama.RecordHeader{Key: []byte(a[0]), Value: []byte(a[1])})
	}
	return out
}
