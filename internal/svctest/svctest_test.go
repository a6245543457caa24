package svctest_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

func TestKafkaCreatesTopicsOnlyThroughTheAdminAPI(t *testing.T) {
	client, err := kgo.NewClient(kgo.SeedBrokers(svctest.Kafka(t)...), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	name := svctest.Unique("orders")
	record := func() *kgo.Record { return &kgo.Record{Topic: name, Value: []byte("x")} }
	require.Error(t, client.ProduceSync(t.Context(), record()).FirstErr())

	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 3, 1
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(t.Context(), client)
	require.NoError(t, err)
	require.Zero(t, answer.Topics[0].ErrorCode)
	client.PurgeTopicsFromClient(name)
	require.NoError(t, client.ProduceSync(t.Context(), record()).FirstErr())
}

// verdict records how a test would have ended.
type verdict struct {
	testing.TB
	skipped, failed bool
}

func (v *verdict) Helper()                  {}
func (v *verdict) Skip(...any)              { v.skipped = true; runtime.Goexit() }
func (v *verdict) Fatal(...any)             { v.failed = true; runtime.Goexit() }
func (v *verdict) Context() context.Context { return context.Background() }

func TestMissingServiceSkipsOrFails(t *testing.T) {
	for _, name := range []string{"OUTBOXKIT_KAFKA_BROKERS", "OUTBOXKIT_AMQP_URL", "OUTBOXKIT_REGISTRY_URL"} {
		t.Setenv(name, "")
	}
	for name, get := range map[string]func(testing.TB){
		"RealKafka": func(t testing.TB) { svctest.RealKafka(t) },
		"RabbitMQ":  func(t testing.TB) { svctest.RabbitMQ(t) },
		"Registry":  func(t testing.TB) { svctest.Registry(t) },
	} {
		for _, required := range []bool{false, true} {
			t.Setenv("OUTBOXKIT_REQUIRE_SERVICES", map[bool]string{false: "", true: "1"}[required])
			v := &verdict{}
			done := make(chan struct{})
			go func() {
				defer close(done)
				get(v)
			}()
			<-done
			require.Equal(t, required, v.failed, name)
			require.Equal(t, !required, v.skipped, name)
		}
	}
}
