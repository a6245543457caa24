package kafka_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// TestCompactedTopicNeedsKeys: Kafka refuses a whole batch because of one
// message without a key; only that one may fail. Tombstones pass.
func TestCompactedTopicNeedsKeys(t *testing.T) {
	addrs := svctest.RealKafka(t)
	topic := svctest.Unique("compacted")
	policy := "compact"
	createTopic(t, addrs, topic, 1, map[string]*string{"cleanup.policy": &policy})
	msgs := numbered(topic, "k", 0, 600)
	msgs[300].Key = ""
	msgs[400].Payload = nil
	var want []string
	for i, err := range newPublisher(t, testConfig(addrs)).Publish(t.Context(), msgs) {
		if i == 300 {
			require.Equal(t, brokers.ClassRejected, brokers.ClassOf(err), "%v", err)
			t.Log(err)
			continue
		}
		require.NoError(t, err)
		want = append(want, msgs[i].ID)
	}
	require.Equal(t, want, published(t, addrs, topic)[0])
}
