package e2e

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

func createTopic(t testing.TB, brokers []string, partitions int32) string {
	t.Helper()
	topic := svctest.Unique("orders")
	admin, err := sarama.NewClusterAdmin(brokers, nil)
	require.NoError(t, err)
	require.NoError(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
	require.NoError(t, admin.Close())
	return topic
}
