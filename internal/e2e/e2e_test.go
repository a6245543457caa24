package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// Over Kafka, with Avro schemas in a registry.
func TestOrdersTakeEffectOnceOverKafka(t *testing.T) {
	server := svctest.OwnKafka(t)
	registryURL := svctest.Registry(t)
	topic := svctest.Unique("orders")
	admin, err := sarama.NewClusterAdmin(server.Brokers(), nil)
	require.NoError(t, err)
	require.NoError(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 6, ReplicationFactor: 1}, false))
	require.NoError(t, admin.Close())
	scenario{
		pipeline: fmt.Sprintf("    kafka: {brokers: [%q]}\n    wire: {format: confluent, registry: {url: %q, register: true}}\n", server.Brokers()[0], registryURL),
		consumer: consumerSpec{Topic: topic, Kafka: server.Brokers(), Registry: registryURL},
		restartBroker: func(ctx context.Context) error {
			return errors.Join(server.Stop(ctx), server.Start(ctx))
		},
	}.run(t)
}

// Over RabbitMQ, without a registry. The broker is not stopped but killed.
func TestOrdersTakeEffectOnceOverRabbitMQ(t *testing.T) {
	server := svctest.OwnRabbitMQ(t)
	topic := svctest.Unique("orders")
	scenario{
		pipeline: fmt.Sprintf("    rabbitmq: {url: %q, declare: true}\n    wire: {format: single-object}\n", server.URL()),
		consumer: consumerSpec{Topic: topic, RabbitMQ: server.URL()},
		restartBroker: func(ctx context.Context) error {
			return errors.Join(server.Kill(), server.Start(ctx))
		},
	}.run(t)
}
