package kafka_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

func retainer(t *testing.T, addrs []string, topics ...string) brokers.Retainer {
	t.Helper()
	cfg := testConfig(addrs)
	cfg.Group = "g"
	s := kafka.NewSubscriber(cfg, topics...)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestRetention(t *testing.T) {
	t.Parallel()
	addrs := svctest.RealKafka(t)
	topic := func(settings ...string) string {
		name, entries := svctest.Unique("retention"), map[string]*string{}
		for i := 0; i < len(settings); i += 2 {
			entries[settings[i]] = &settings[i+1]
		}
		createTopic(t, addrs, name, 1, entries)
		return name
	}
	day, week := topic("retention.ms", "86400000"), topic() // the broker's default
	infinite, compacted := topic("retention.ms", "-1"), topic("cleanup.policy", "compact")
	both := topic("cleanup.policy", "compact,delete", "retention.ms", "3600000")
	for _, tt := range []struct {
		want   time.Duration
		topics []string
	}{
		{24 * time.Hour, []string{day}},
		{7 * 24 * time.Hour, []string{day, week, both}},
		{time.Hour, []string{both}},
		{brokers.Forever, []string{day, infinite}},
		{brokers.Forever, []string{compacted}},
	} {
		keeps, ok, err := retainer(t, addrs, tt.topics...).Retention(t.Context())
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, tt.want, keeps, tt.topics)
	}
	_, ok, err := retainer(t, addrs, "no such topic").Retention(t.Context())
	require.Error(t, err)
	require.False(t, ok)
}

func TestRetentionThatNobodyTells(t *testing.T) {
	t.Parallel()
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: 1})
	_, ok, err := retainer(t, c.ListenAddrs(), "orders").Retention(t.Context())
	require.ErrorContains(t, err, "not authorized")
	require.False(t, ok)

	_, _, err = kafka.NewSubscriber(kafka.Config{}).Retention(t.Context())
	require.ErrorContains(t, err, "Config.Brokers is empty")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = retainer(t, []string{"127.0.0.1:1"}, "orders").Retention(ctx)
	require.Error(t, err)
}
