package rabbitmq_test

import (
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// dying accepts connections of which the first ones end after so many reads from
// the client, in their handshake.
type dying struct {
	net.Listener
	first atomic.Int32
	reads int
}

func (l *dying) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.first.Add(-1) >= 0 {
		c = &doomed{Conn: c, left: l.reads}
	}
	return c, err
}

type doomed struct {
	net.Conn
	left int
}

func (c *doomed) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	c.left--
	return c.Conn.Read(b)
}

// TestBrokerDiesInTheHandshake: without an answer, the client speaks of a wrong
// password or a forbidden virtual host. That must not end a consumer at once.
func TestBrokerDiesInTheHandshake(t *testing.T) {
	broker := svctest.RabbitMQ(t)
	u, err := url.Parse(broker)
	require.NoError(t, err)
	for name, reads := range map[string]int{"at the password": 1, "at the virtual host": 2} {
		t.Run(name, func(t *testing.T) {
			queue := newQueue(t, broker, nil)
			publishNumbered(t, broker, queue, 0, 1)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			flawed := &dying{Listener: listener, reads: reads}
			flawed.first.Store(3)
			target := *u
			c := consume(t, rabbitmq.SubscriberConfig{URL: startProxy(t, flawed, &target).url}, queue)
			require.NoError(t, c.next(t).Ack())
			require.Negative(t, flawed.first.Load())
		})
	}
}
