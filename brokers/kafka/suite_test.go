package kafka_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

const fetchedAhead = "Kafka does not know what a consumer has fetched; the client stops fetching a partition whose handle blocks"

func TestSuiteOnKafka(t *testing.T) {
	server := svctest.OwnKafka(t)
	h := harness([]string{server.Addr()})
	h.Stop = func(t *testing.T) { require.NoError(t, server.Stop(t.Context())) }
	h.Start = func(t *testing.T) { require.NoError(t, server.Start(context.WithoutCancel(t.Context()))) }
	brokertest.Exercise(t, h)
}

func TestSuiteOnKfake(t *testing.T) {
	h := harness(svctest.FakeKafka(t).ListenAddrs())
	h.Without["Stop"] = "kfake cannot be restarted with its data at the same address"
	brokertest.Exercise(t, h)
}

func harness(addrs []string) brokertest.Harness {
	return brokertest.Harness{
		Broker: "kafka",
		NewPublisher: func(*testing.T) brokers.Publisher {
			return kafka.NewPublisher(testConfig(addrs))
		},
		NewSubscriber: func(_ *testing.T, topic brokertest.Topic) brokers.Subscriber {
			cfg := testConfig(addrs)
			cfg.Group = topic.Group
			cfg.DrainTimeout = brokertest.DrainTimeout
			return kafka.NewSubscriber(cfg, topic.Name)
		},
		CreateTopic: func(t *testing.T, topic brokertest.Topic) {
			configs := map[string]*string{}
			if topic.MaxBytes > 0 {
				limit := strconv.Itoa(topic.MaxBytes)
				configs["max.message.bytes"] = &limit
			}
			createTopic(t, addrs, topic.Name, topic.Units, configs)
		},
		Without: map[string]string{
			"Unroutable": "a Kafka topic keeps what nobody reads",
			"Ahead":      fetchedAhead,
		},
	}
}

func testConfig(addrs []string) kafka.Config {
	return kafka.Config{
		Brokers: addrs,
		Logger:  slog.New(slog.DiscardHandler),
		Sarama: func(sc *sarama.Config) {
			sc.Producer.Compression = sarama.CompressionNone              // oversize payloads are zeroes: compressed they would pass
			sc.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond // rebalances are noticed by heartbeats
		},
	}
}

// createTopic creates a topic and waits until all its partitions have leaders.
func createTopic(t testing.TB, addrs []string, name string, partitions int, configs map[string]*string) {
	t.Helper()
	sc := sarama.NewConfig()
	sc.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(addrs, sc)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	detail := &sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: 1, ConfigEntries: configs}
	require.NoError(t, admin.CreateTopic(name, detail, false))
	require.Eventually(t, func() bool {
		found, err := admin.DescribeTopics([]string{name})
		if err != nil || len(found) != 1 || len(found[0].Partitions) != partitions {
			return false
		}
		for _, p := range found[0].Partitions {
			if p.Leader < 0 || p.Err != sarama.ErrNoError {
				return false
			}
		}
		return true
	}, 30*time.Second, 10*time.Millisecond, "topic %s", name)
}
