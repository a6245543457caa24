package kafka_test

import (
	"sync"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// TestEveryRequestAsksForAllReplicas: each produce request, a repeated one too,
// waits for all in-sync replicas, and each batch is an idempotent producer's;
// a user's setting does not change that.
func TestEveryRequestAsksForAllReplicas(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(3, "orders"))
	var mu sync.Mutex
	var acks []int16
	batches := map[int32][]sentBatch{}
	c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		req := kreq.(*kmsg.ProduceRequest)
		acks = append(acks, req.Acks)
		for _, rt := range req.Topics {
			for _, rp := range rt.Partitions {
				var b kmsg.RecordBatch
				if err := b.ReadFrom(rp.Records); err != nil {
					return nil, err, true
				}
				batches[rp.Partition] = append(batches[rp.Partition],
					sentBatch{rp.Partition, b.ProducerID, b.ProducerEpoch, b.FirstSequence, b.NumRecords})
			}
		}
		return nil, nil, false
	})
	cfg := testConfig(c.ListenAddrs())
	ours := cfg.Sarama
	cfg.Sarama = func(sc *sarama.Config) {
		ours(sc)
		sc.Producer.RequiredAcks = sarama.NoResponse
	}
	p := newPublisher(t, cfg)
	mustPublish(t, p, numbered("orders", "a", 0, 1200))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders", Err: kerr.NotEnoughReplicas, Count: 2})
	mustPublish(t, p, append(numbered("orders", "a", 1200, 1200), numbered("orders", "", 2400, 600)...))

	mu.Lock()
	defer mu.Unlock()
	require.NotEmpty(t, acks)
	for _, a := range acks {
		require.EqualValues(t, -1, a)
	}
	for partition, sent := range batches {
		var next, again int32
		for _, b := range sent {
			require.GreaterOrEqual(t, b.pid, int64(0), "partition %d has no producer id", partition)
			require.GreaterOrEqual(t, b.epoch, int16(0))
			if b.sequence != next {
				require.Equal(t, again, b.sequence, "partition %d: neither the next batch nor the last one again", partition)
			}
			again, next = b.sequence, b.sequence+b.records
		}
	}
}
