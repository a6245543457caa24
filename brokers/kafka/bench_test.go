package kafka_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// BenchmarkPublish publishes 10,000 events an operation, of 300 bytes with eight
// headers to 12 partitions, and in the same run the same with the client's own
// idempotent asynchronous producer, which promises no order after a failure.
// ratio is the publisher's rate over the producer's.
func BenchmarkPublish(b *testing.B) {
	for name, keys := range map[string]int{"1000_keys": 1000, "one_key": 1, "no_key": 0} {
		b.Run(name, func(b *testing.B) { benchmarkPublish(b, keys) })
	}
}

const (
	benchEvents     = 10_000
	benchPartitions = 12
)

func benchmarkPublish(b *testing.B, keys int) {
	addrs := svctest.RealKafka(b)
	topic := svctest.Unique("bench")
	retention := "100000000"
	createTopic(b, addrs, topic, benchPartitions, map[string]*string{"retention.bytes": &retention})
	msgs := benchMessages(topic, keys)

	plain, err := sarama.NewAsyncProducer(addrs, plainConfig())
	require.NoError(b, err)
	defer func() { require.NoError(b, plain.Close()) }()
	pub := newPublisher(b, kafka.Config{Brokers: addrs})
	publishPlainly(b, plain, msgs) // both have their metadata
	mustPublish(b, pub, msgs)

	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		mustPublish(b, pub, msgs)
		ours += time.Since(start)
		start = time.Now()
		publishPlainly(b, plain, msgs)
		theirs += time.Since(start)
	}
	total := float64(b.N) * benchEvents
	b.ReportMetric(total/ours.Seconds(), "events/s")
	b.ReportMetric(total/theirs.Seconds(), "plain_events/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op") // of both together: says nothing
}

func plainConfig() *sarama.Config {
	sc := sarama.NewConfig()
	sc.Version = sarama.V2_8_0_0
	sc.Net.MaxOpenRequests = 1
	sc.Producer.Idempotent = true
	sc.Producer.RequiredAcks = sarama.WaitForAll
	sc.Producer.Compression = sarama.CompressionSnappy
	sc.Producer.Partitioner = sarama.NewMurmur2Partitioner
	sc.Producer.Return.Successes = true
	return sc
}

// publishPlainly makes the client's messages and waits for all of them, as
// Publish does.
func publishPlainly(b *testing.B, p sarama.AsyncProducer, msgs []brokers.Message) {
	failed := make(chan error, 1)
	go func() {
		var errs []error
		for range msgs {
			select {
			case <-p.Successes():
			case err := <-p.Errors():
				errs = append(errs, err)
			}
		}
		failed <- errors.Join(errs...)
	}()
	for i := range msgs {
		p.Input() <- plainMessage(&msgs[i])
	}
	require.NoError(b, <-failed)
}

func plainMessage(m *brokers.Message) *sarama.ProducerMessage {
	pm := &sarama.ProducerMessage{
		Topic: m.Topic, Value: sarama.ByteEncoder(m.Payload), Timestamp: m.Time,
		Headers: []sarama.RecordHeader{
			{Key: []byte("ce_specversion"), Value: []byte("1.0")},
			{Key: []byte("ce_id"), Value: []byte(m.ID)},
			{Key: []byte("ce_source"), Value: []byte(m.Source)},
			{Key: []byte("ce_type"), Value: []byte(m.Type)},
			{Key: []byte("ce_time"), Value: []byte(m.Time.UTC().Format(time.RFC3339Nano))},
			{Key: []byte("content-type"), Value: []byte(m.ContentType)},
			{Key: []byte("ce_correlationid"), Value: []byte(m.CorrelationID)},
			{Key: []byte("traceparent"), Value: []byte(m.Headers["traceparent"])},
		},
	}
	if m.Key != "" {
		pm.Key = sarama.StringEncoder(m.Key)
	}
	return pm
}

// benchMessages returns events that compress about as well as real ones.
func benchMessages(topic string, keys int) []brokers.Message {
	msgs := make([]brokers.Message, benchEvents)
	now := time.Now()
	for i := range msgs {
		payload := fmt.Appendf(nil, `{"orderId":"%d-4bf92f3577b34da6","userId":"u-%d","items":[{"sku":"A-%d","qty":%d,"price":%d.99}],"pad":"`, i*7919, i*31, i*17, i%9, i%1000)
		for len(payload) < 298 {
			payload = append(payload, byte('a'+(i*len(payload)*7)%26))
		}
		msgs[i] = brokers.Message{
			Topic: topic, ID: fmt.Sprintf("01935b2e-5b5c-7abc-9def-%012d", i), Source: "/shop/orders", Type: "shop.order.placed",
			Time: now, ContentType: "application/avro", CorrelationID: fmt.Sprintf("01935b2e-5b5c-7abc-8def-%012d", i/3),
			Headers: map[string]string{"traceparent": fmt.Sprintf("00-4bf92f3577b34da6a3ce929d%08x-00f067aa0ba902b7-01", i)},
			Payload: append(payload, '"', '}'),
		}
		if keys > 0 {
			msgs[i].Key = "key-" + strconv.Itoa(i*7919%keys)
		}
	}
	return msgs
}
