package kafka_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// slowNet is a network that, once armed, keeps what is written to the present
// connections to itself, even after they have been closed, until it is released.
type slowNet struct {
	mu    sync.Mutex
	armed bool
	held  []*slowConn // connections with something kept back
}

// Dial implements the client's dialer.
func (n *slowNet) Dial(network, addr string) (net.Conn, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c, net: n}, nil
}

type slowConn struct {
	net.Conn
	net    *slowNet
	kept   []byte
	closed bool
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if len(c.kept) == 0 && !c.net.armed {
		return c.Conn.Write(b)
	}
	if len(c.kept) == 0 {
		c.net.held = append(c.net.held, c)
	}
	c.kept = append(c.kept, b...)
	return len(b), nil
}

func (c *slowConn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if len(c.kept) == 0 {
		return c.Conn.Close()
	}
	c.closed = true
	return c.SetReadDeadline(time.Unix(1, 0)) // the client's reader ends; what is kept is still under way
}

func (n *slowNet) arm(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed = on
}

// release delivers what was kept and waits until the broker has dealt with it.
func (n *slowNet) release(t *testing.T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	require.NotEmpty(t, n.held, "nothing was kept back")
	for _, c := range n.held {
		_, err := c.Conn.Write(c.kept)
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err = c.Conn.Read(make([]byte, 4096)) // the answer
		require.NoError(t, err)
		require.NoError(t, c.Conn.Close())
	}
}

// TestLateBatchIsRefused: a batch that was given up arrives at the broker after
// later messages of its key have been published. It must not get into the log:
// a compacted topic would end with an old state. (kfake does not refuse old
// epochs, hence a real Kafka.)
func TestLateBatchIsRefused(t *testing.T) {
	addrs := svctest.RealKafka(t)
	topic := svctest.Unique("zombie")
	createTopic(t, addrs, topic, 1, nil)
	var slow slowNet
	cfg := testConfig(addrs)
	cfg.PublishTimeout = time.Second
	cfg.Sarama = func(sc *sarama.Config) {
		sc.Net.Proxy.Enable = true
		sc.Net.Proxy.Dialer = &slow
	}
	p := newPublisher(t, cfg)
	mustPublish(t, p, numbered(topic, "k", 0, 10))

	slow.arm(true)
	ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
	defer cancel()
	for _, err := range p.Publish(ctx, numbered(topic, "k", 10, 10)) {
		require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))
	}
	slow.arm(false)
	mustPublish(t, p, numbered(topic, "k", 10, 3))
	mustPublish(t, p, numbered(topic, "k", 13, 20))
	slow.release(t)
	mustPublish(t, p, numbered(topic, "k", 33, 1))
	require.Equal(t, idsOf(numbered(topic, "k", 0, 34)), published(t, addrs, topic)[0])
}
