package kafka_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	addrs := svctest.RealKafka(t)
	loose, plain, missing := svctest.Unique("loose"), svctest.Unique("plain"), svctest.Unique("missing")
	createTopic(t, addrs, loose, 2, map[string]*string{"unclean.leader.election.enable": new("true"), "retention.ms": new("3600000"), "min.insync.replicas": new("2")})
	createTopic(t, addrs, plain, 1, nil)
	list, err := kafka.Inspect(t.Context(), testConfig(addrs), []string{loose, missing, plain})
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, kafka.TopicState{
		Topic: loose, Partitions: 2, Replicas: 1, InSync: 1, MinInSync: 2, Unclean: true, Retention: time.Hour,
	}, list[0])
	require.Error(t, list[1].Err)
	require.Equal(t, kafka.TopicState{Topic: plain, Partitions: 1, Replicas: 1, InSync: 1, MinInSync: 1, Retention: 7 * 24 * time.Hour}, list[2])

	_, err = kafka.Inspect(t.Context(), testConfig(addrs), nil)
	require.NoError(t, err)
	again, err := kafka.Inspect(t.Context(), testConfig(addrs), []string{missing})
	require.NoError(t, err)
	require.Error(t, again[0].Err, "asking created nothing")
}

func TestInspectWhatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, topics := range [][]string{nil, {"orders"}} {
		_, err := kafka.Inspect(t.Context(), testConfig([]string{"127.0.0.1:1"}), topics)
		require.Error(t, err)
	}
	_, err := kafka.Inspect(t.Context(), kafka.Config{}, nil)
	require.ErrorContains(t, err, "Config.Brokers is empty")

	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: 1})
	list, err := kafka.Inspect(t.Context(), testConfig(c.ListenAddrs()), []string{"orders"})
	require.NoError(t, err)
	require.Error(t, list[0].Unsettled)
	require.Equal(t, 1, list[0].Partitions)
}
