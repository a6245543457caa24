package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
)

// published returns the ids in the topic's partitions, in log order.
func published(t testing.TB, addrs []string, topic string) map[int32][]string {
	t.Helper()
	sc := sarama.NewConfig()
	sc.Version = sarama.V2_8_0_0
	client, err := sarama.NewClient(addrs, sc)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	consumer, err := sarama.NewConsumerFromClient(client)
	require.NoError(t, err)
	defer func() { require.NoError(t, consumer.Close()) }()
	partitions, err := client.Partitions(topic)
	require.NoError(t, err)
	out := map[int32][]string{}
	for _, p := range partitions {
		end, err := client.GetOffset(topic, p, sarama.OffsetNewest)
		require.NoError(t, err)
		pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		require.NoError(t, err)
		for next := int64(0); next < end; {
			select {
			case m := <-pc.Messages():
				next = m.Offset + 1
				out[p] = append(out[p], idOf(m))
			case <-time.After(20 * time.Second):
				require.FailNow(t, "the log cannot be read to its end")
			}
		}
		require.NoError(t, pc.Close())
	}
	return out
}

func idOf(m *sarama.ConsumerMessage) string {
	for _, h := range m.Headers {
		if string(h.Key) == "ce_id" {
			return string(h.Value)
		}
	}
	return ""
}

// numbered returns n messages of one key with the ids from, from+1, …
func numbered(topic, key string, from, n int) []brokers.Message {
	msgs := make([]brokers.Message, n)
	for i := range msgs {
		msgs[i] = brokers.Message{
			Topic: topic, Key: key, ID: fmt.Sprintf("%05d", from+i), Source: "/test", Type: "test.counted",
			Time: time.Now(), Payload: fmt.Appendf(nil, "payload %d", from+i),
		}
	}
	return msgs
}

func idsOf(msgs []brokers.Message) []string {
	out := make([]string, len(msgs))
	for i, m := range msgs {
		out[i] = m.ID
	}
	return out
}

// newPublisher returns a publisher that the test closes.
func newPublisher(t testing.TB, cfg kafka.Config) *kafka.Publisher {
	t.Helper()
	p := kafka.NewPublisher(cfg)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// mustPublish publishes once and wants every message confirmed.
func mustPublish(t testing.TB, p brokers.Publisher, msgs []brokers.Message) {
	t.Helper()
	require.NoError(t, errors.Join(p.Publish(t.Context(), msgs)...))
}

// sentBatch is what a produce request carried.
type sentBatch struct {
	partition int32
	pid       int64
	epoch     int16
	sequence  int32
	records   int32
}

// watchProduce calls see for each batch that arrives, before it is handled. If
// see returns true the request is answered by nobody and its connection closed.
func watchProduce(c *kfake.Cluster, topic string, see func(sentBatch) (drop bool)) {
	c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		for _, rt := range kreq.(*kmsg.ProduceRequest).Topics {
			if rt.Topic != topic {
				continue
			}
			for _, rp := range rt.Partitions {
				var b kmsg.RecordBatch
				if err := b.ReadFrom(rp.Records); err != nil {
					return nil, err, true
				}
				if see(sentBatch{rp.Partition, b.ProducerID, b.ProducerEpoch, b.FirstSequence, b.NumRecords}) {
					return nil, errors.New("dropped by the test"), true
				}
			}
		}
		return nil, nil, false
	})
}

// faultyNet makes a kfake listener whose connections lose answers on demand.
type faultyNet struct {
	lose atomic.Bool // close a connection instead of writing the next answer
}

func (f *faultyNet) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return &faultyListener{l, f}, err
}

type faultyListener struct {
	net.Listener
	net *faultyNet
}

func (l *faultyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &faultyConn{c, l.net}, nil
}

type faultyConn struct {
	net.Conn
	net *faultyNet
}

func (c *faultyConn) Write(b []byte) (int, error) {
	if c.net.lose.CompareAndSwap(true, false) {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// subscribe runs a subscriber until the test ends; the error is sent when it ends.
func subscribe(t testing.TB, s *kafka.Subscriber, handle brokers.Handle) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Subscribe(ctx, handle) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, s.Close())
	})
	return done
}

func addPartitions(t testing.TB, addrs []string, topic string, count int32) {
	t.Helper()
	sc := sarama.NewConfig()
	sc.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(addrs, sc)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	require.NoError(t, admin.CreatePartitions(topic, count, nil, false))
}
