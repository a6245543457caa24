package rabbitmq_test

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	server "github.com/outboxkit/outboxkit/internal/services/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// TestTroubledBroker needs a broker to trouble.
func TestTroubledBroker(t *testing.T) {
	b := &ownBroker{Server: svctest.OwnRabbitMQ(t)}
	b.queue = newQueue(t, b.URL(), nil)
	t.Run("memory alarm blocks publishers", b.memoryAlarm)
	t.Run("queue that never confirms harms no other", b.stuckQueue)
	t.Run("server's own size limit", b.sizeLimit)
}

type ownBroker struct {
	*server.Server
	queue string
}

func (b *ownBroker) ctl(t *testing.T, args ...string) {
	t.Helper()
	out, err := b.Ctl(t.Context(), args...)
	require.NoError(t, err, out)
}

func (b *ownBroker) memoryAlarm(t *testing.T) {
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: b.URL()})
	requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(b.queue, "key", 0)}))
	b.ctl(t, "set_vm_memory_high_watermark", "0.0001")
	require.Eventually(t, func() bool {
		start := time.Now()
		err := p.Publish(t.Context(), []brokers.Message{message(b.queue, "key", 1)})[0]
		require.Less(t, time.Since(start), 3*time.Second)
		if err == nil {
			return false // it takes one message to notice
		}
		require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err), "%v", err)
		require.ErrorContains(t, err, "low on memory")
		return true
	}, patience, 10*time.Millisecond)
	b.ctl(t, "set_vm_memory_high_watermark", "0.4")
	require.Eventually(t, func() bool {
		return p.Publish(t.Context(), []brokers.Message{message(b.queue, "key", 2)})[0] == nil
	}, patience, 10*time.Millisecond)
}

func (b *ownBroker) stuckQueue(t *testing.T) {
	stuck := svctest.Unique("stuck")
	withChannel(t, b.URL(), func(ch *amqp.Channel) {
		_, err := ch.QueueDeclare(stuck, true, false, false, false, nil) // classic: one process to stop
		require.NoError(t, err)
	})
	b.ctl(t, "eval", fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
			sys:suspend(amqqueue:get_pid(Q)).`, stuck))
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: b.URL(), ConfirmTimeout: time.Second})
	bad := make(chan error)
	go func() { bad <- p.Publish(t.Context(), []brokers.Message{message(stuck, "key", 0)})[0] }()
	for n := 0; ; n++ {
		start := time.Now()
		requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(b.queue, "key", n)}))
		require.Less(t, time.Since(start), time.Second/2)
		select {
		case err := <-bad:
			require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err), "%v", err)
			require.Greater(t, n, 10)
			return
		default:
		}
	}
}

func (b *ownBroker) sizeLimit(t *testing.T) {
	b.ctl(t, "eval", "application:set_env(rabbit, max_message_size, 1000), persistent_term:put(max_message_size, 1000).")
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: b.URL()})
	var msgs []brokers.Message
	for n := range 100 {
		msgs = append(msgs, message(b.queue, fmt.Sprint("key-", n), n))
	}
	msgs[50].Payload = make([]byte, 2000)
	results := p.Publish(t.Context(), msgs)
	require.Equal(t, brokers.ClassRejected, brokers.ClassOf(results[50]), "%v", results[50])
	results[50] = nil
	requireConfirmed(t, results)
}
