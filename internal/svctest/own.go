package svctest

import (
	"context"
	"testing"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

// startTimeout is generous: several servers may be starting on a small machine.
const startTimeout = 3 * time.Minute

// OwnKafka starts a real Kafka for this test alone, to crash, stop and restart.
// It takes about five seconds.
func OwnKafka(t testing.TB) *kafka.Server {
	t.Helper()
	return OwnKafkaWith(t, kafka.Config{})
}

// OwnKafkaWith is [OwnKafka] with a configuration.
func OwnKafkaWith(t testing.TB, cfg kafka.Config) *kafka.Server {
	t.Helper()
	if err := kafka.Available(); err != nil {
		Missing(t, "no Kafka can be started here: "+err.Error()+" (`make test` brings it)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err := kafka.Start(ctx, cfg)
	if err != nil {
		t.Fatal("svctest: ", err)
	}
	closeAtEnd(t, s.Close)
	return s
}

// OwnRabbitMQ starts a real RabbitMQ for this test alone, to crash, stop and
// restart. It takes about five seconds.
func OwnRabbitMQ(t testing.TB) *rabbitmq.Server {
	t.Helper()
	return OwnRabbitMQWith(t, rabbitmq.Config{})
}

// OwnRabbitMQWith is [OwnRabbitMQ] with a configuration.
func OwnRabbitMQWith(t testing.TB, cfg rabbitmq.Config) *rabbitmq.Server {
	t.Helper()
	if err := rabbitmq.Available(); err != nil {
		Missing(t, "no RabbitMQ can be started here: "+err.Error()+" (`make test` brings it)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err := rabbitmq.Start(ctx, cfg)
	if err != nil {
		t.Fatal("svctest: ", err)
	}
	closeAtEnd(t, s.Close)
	return s
}

func closeAtEnd(t testing.TB, stop func(context.Context) error) {
	t.Cleanup(func() {
		if err := stop(context.Background()); err != nil {
			t.Error("svctest: stop the server: ", err)
		}
	})
}
