package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/relay"
)

// BenchmarkDrain publishes a backlog of 300-byte events to a real Kafka, by the
// relay and by sarama's own idempotent producer with the same messages, in turn,
// and prints both rates and their ratio.
//
//	go run ./internal/cmd/services run -- go test ./internal/e2e -run - -bench Drain -benchtime 3x
func BenchmarkDrain(b *testing.B) {
	const events = 200_000
	brokers := svctest.RealKafka(b)
	var ours, theirs []float64
	for b.Loop() {
		ours = append(ours, drainByRelay(b, brokers, events))
		theirs = append(theirs, drainByClient(b, brokers, events))
	}
	o, t := median(ours), median(theirs)
	b.ReportMetric(o, "relay-events/s")
	b.ReportMetric(t, "client-events/s")
	b.ReportMetric(o/t, "ratio")
	b.ReportMetric(0, "ns/op") // the loop's own time says nothing
}

func drainByRelay(b *testing.B, brokers []string, events int) float64 {
	b.Helper()
	ctx := b.Context()
	topic := createTopic(b, brokers, 12)
	pool, err := pgxpool.New(ctx, pgtest.URL(b))
	require.NoError(b, err)
	defer pool.Close()
	require.NoError(b, pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return migrate.Outbox("").Up(ctx, c.Conn()) }))
	_, err = pool.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, content_type, correlation_id, headers, payload)
		SELECT $1, 'key-' || g % 1000, 'com.example.OrderPlaced', '/orders', 'application/avro', gen_random_uuid()::text,
			'{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}', convert_to(rpad(g::text, 300, md5(g::text)), 'UTF8')
		FROM generate_series(1, $2) g`, topic, events)
	require.NoError(b, err)
	_, err = pool.Exec(ctx, `VACUUM ANALYZE outbox.event`)
	require.NoError(b, err)

	to := kafka.NewPublisher(kafka.Config{Brokers: brokers})
	defer func() { require.NoError(b, to.Close()) }()
	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{{Name: "bench", To: to}}})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- r.Run(ctx) }()
	require.Eventually(b, func() bool { return r.Stats().Pipelines[0].Published >= uint64(events) }, 2*time.Minute, time.Millisecond)
	took := time.Since(began)
	cancel()
	require.NoError(b, <-done)
	return float64(events) / took.Seconds()
}

func drainByClient(b *testing.B, brokers []string, events int) float64 {
	b.Helper()
	topic := createTopic(b, brokers, 12)
	c := sarama.NewConfig()
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Net.MaxOpenRequests = 1
	c.Producer.Return.Successes = true
	c.Producer.Compression = sarama.CompressionSnappy
	p, err := sarama.NewAsyncProducer(brokers, c)
	require.NoError(b, err)
	messages := make([]sarama.ProducerMessage, events)
	for i := range messages {
		messages[i] = sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(fmt.Sprint("key-", i%1000)),
			Value: sarama.StringEncoder(fmt.Sprintf("%0300d", i)), Headers: cloudEventHeaders(),
		}
	}
	began := time.Now()
	go func() {
		for i := range messages {
			p.Input() <- &messages[i]
		}
	}()
	for range messages {
		select {
		case <-p.Successes():
		case e := <-p.Errors():
			b.Fatal(e)
		}
	}
	took := time.Since(began)
	require.NoError(b, p.Close())
	return float64(events) / took.Seconds()
}

func cloudEventHeaders() []sarama.RecordHeader {
	var h []sarama.RecordHeader
	for _, kv := range [][2]string{
		{"ce_specversion", "1.0"}, {"ce_id", "01935b2e-5b5c-7abc-9def-0123456789ab"}, {"ce_source", "/orders"},
		{"ce_type", "com.example.OrderPlaced"}, {"ce_time", "2026-11-21T00:07:08.123456Z"}, {"content-type", "application/avro"},
		{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {"ce_correlationid", "01935b2e-5b5c-7abc-9def-0123456789ab"},
	} {
		h = append(h, sarama.RecordHeader{Key: []byte(kv[0]), Value: []byte(kv[1])})
	}
	return h
}

func createTopic(t testing.TB, brokers []string, partitions int32) string {
	t.Helper()
	topic := svctest.Unique("orders")
	admin, err := sarama.NewClusterAdmin(brokers, nil)
	require.NoError(t, err)
	require.NoError(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
	require.NoError(t, admin.Close())
	return topic
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
