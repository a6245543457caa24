package svctest

import (
	"context"
	"strconv"
	"testing"

	"github.com/outboxkit/outboxkit/internal/services/proc"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

// ManagedRabbitMQ is [OwnRabbitMQ] with the management API, whose address it returns
// too.
func ManagedRabbitMQ(t testing.TB) (s *rabbitmq.Server, management string) {
	t.Helper()
	if err := rabbitmq.Available(); err != nil {
		Missing(t, "no RabbitMQ can be started here: "+err.Error()+" (`make test` brings it)")
	}
	port, err := proc.FreePort()
	if err != nil {
		t.Fatal("svctest: ", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err = rabbitmq.Start(ctx, rabbitmq.Config{
		Plugins:  []string{"rabbitmq_management"},
		Settings: map[string]string{"management.tcp.ip": "127.0.0.1", "management.tcp.port": strconv.Itoa(port)},
	})
	if err != nil {
		t.Fatal("svctest: ", err)
	}
	closeAtEnd(t, s.Close)
	return s, "http://" + proc.Address(port)
}
