package rabbitmq_test

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

func TestServerKeepsDataOverStopAndKill(t *testing.T) {
	if err := rabbitmq.Available(); err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s, err := rabbitmq.Start(ctx, rabbitmq.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })

	publish(t, s, "one")
	pid := s.Pid()
	require.NoError(t, s.Kill())
	requireGone(t, pid, s.Addr())
	require.NoError(t, s.Start(ctx))
	publish(t, s, "two")
	pid = s.Pid()
	require.NoError(t, s.Stop(ctx))
	requireGone(t, pid, s.Addr())
	require.NoError(t, s.Start(ctx))
	out, err := s.Ctl(ctx, "list_queues", "--silent", "name", "messages")
	require.NoError(t, err)
	require.Contains(t, out, "orders\t2")
}

// requireGone checks the process group and, as Erlang's helpers leave it, also
// that no process of this machine names the node.
func requireGone(t *testing.T, pid int, addr string) {
	t.Helper()
	require.ErrorIs(t, syscall.Kill(-pid, 0), syscall.ESRCH, "process group %d", pid)
	_, port, _ := strings.Cut(addr, ":")
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // not Linux
	}
	for _, e := range entries {
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil {
			require.NotContains(t, string(env), "outboxkit"+port+"@localhost", "process %s", e.Name())
		}
	}
}

func publish(t *testing.T, s *rabbitmq.Server, body string) {
	t.Helper()
	conn, err := amqp.Dial(s.URL())
	require.NoError(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	require.NoError(t, err)
	_, err = ch.QueueDeclare("orders", true, false, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.Confirm(false))
	confirm, err := ch.PublishWithDeferredConfirm("", "orders", false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)})
	require.NoError(t, err)
	require.True(t, confirm.Wait())
}
