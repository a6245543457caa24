package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// Over Kafka, with Avro schemas in a registry.
func TestOrdersTakeEffectOnceOverKafka(t *testing.T) {
	server := svctest.OwnKafka(t)
	registryURL := svctest.Registry(t)
	topic := createTopic(t, server.Brokers(), 6)
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
