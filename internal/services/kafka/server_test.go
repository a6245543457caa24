package kafka_test

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/internal/services/kafka"
)

func TestServerKeepsDataOverStopAndKill(t *testing.T) {
	if err := kafka.Available(); err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s, err := kafka.Start(ctx, kafka.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })

	createTopic(t, s, "orders")
	produce(t, s, "orders", "one")
	pid := s.Pid()
	require.NoError(t, s.Kill())
	requireGone(t, pid)
	require.NoError(t, s.Start(ctx))
	produce(t, s, "orders", "two")
	pid = s.Pid()
	require.NoError(t, s.Stop(ctx))
	requireGone(t, pid)
	require.NoError(t, s.Start(ctx))
	require.Equal(t, []string{"one", "two"}, consume(t, s, "orders", 2))
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.ErrorIs(t, syscall.Kill(-pid, 0), syscall.ESRCH, "process group %d", pid)
}

func client(t *testing.T, s *kafka.Server, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(s.Brokers()...))...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func createTopic(t *testing.T, s *kafka.Server, name string) {
	t.Helper()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(t.Context(), client(t, s))
	require.NoError(t, err)
	require.Zero(t, answer.Topics[0].ErrorCode)
}

func produce(t *testing.T, s *kafka.Server, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	record := &kgo.Record{Topic: topic, Value: []byte(value)}
	require.NoError(t, client(t, s).ProduceSync(ctx, record).FirstErr())
}

func consume(t *testing.T, s *kafka.Server, topic string, n int) (values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := client(t, s, kgo.ConsumeTopics(topic))
	for len(values) < n {
		fetches := c.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}
