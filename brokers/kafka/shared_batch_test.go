package kafka

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers"
)

// TestNothingOfAReturnedCallFollows: messages of two calls share a batch that
// the broker does not take yet. One call goes away; from then on its messages
// are out of the batch, and the other's are published.
func TestNothingOfAReturnedCallFollows(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	var together, alone atomic.Int32
	refusing := cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1,
		When: func(r kmsg.Request) bool {
			records := r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records
			if !bytes.Contains(records, []byte("goes")) {
				alone.Add(1)
				return false
			}
			together.Add(1)
			return true
		},
	})
	p := NewPublisher(Config{
		Brokers: cluster.ListenAddrs(),
		Sarama:  func(sc *sarama.Config) { sc.Producer.Compression = sarama.CompressionNone },
	})
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	top := p.topic("orders")
	top.refresh(nil)
	ready, err := top.ready()
	require.NoError(t, err)
	require.True(t, ready)
	part := top.parts[0]
	part.running = true // nobody sends until both calls have queued
	call := func(name string) *call {
		msgs := make([]brokers.Message, 5)
		idx := make([]int32, len(msgs))
		for i := range msgs {
			msgs[i], idx[i] = brokers.Message{Topic: "orders", Key: name, ID: fmt.Sprint(name, i)}, int32(i)
		}
		c := newCall(msgs, func(string) error { return nil })
		p.enqueue(c, top, msgs, idx)
		return c
	}
	goes, stays := call("goes"), call("stays")
	require.True(t, p.spawn(part.run))
	require.Eventually(t, func() bool { return together.Load() >= 3 }, 10*time.Second, time.Millisecond)
	for _, err := range goes.finish(context.Canceled) {
		require.ErrorIs(t, err, context.Canceled)
	}
	select {
	case <-stays.done:
	case <-time.After(10 * time.Second):
		require.FailNow(t, "the other call's messages are stuck")
	}
	require.Positive(t, alone.Load())
	refusing.Remove()
	require.EqualValues(t, 5, cluster.PartitionInfo("orders", 0).HighWatermark)
	for _, err := range stays.results {
		require.NoError(t, err)
	}
}
