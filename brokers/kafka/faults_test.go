package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// TestRetriableAnswers: whatever passing trouble the broker reports, before or
// after it has appended the batch, each message is in the log once, in order.
func TestRetriableAnswers(t *testing.T) {
	for _, fault := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition,
		kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.KafkaStorageError,
		kerr.CorruptMessage, kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch,
	} {
		t.Run(fault.Message, func(t *testing.T) {
			t.Parallel()
			c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
			p := newPublisher(t, testConfig(c.ListenAddrs()))
			mustPublish(t, p, numbered("orders", "k", 0, 10))
			injected := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders", Err: fault, Count: 3})
			mustPublish(t, p, numbered("orders", "k", 10, 1200))
			require.Equal(t, 3, injected.Hits())
			require.Equal(t, idsOf(numbered("orders", "k", 0, 1210)), published(t, c.ListenAddrs(), "orders")[0])
		})
	}
}

// TestLostAnswer: the connection breaks after the batch is in the log.
func TestLostAnswer(t *testing.T) {
	var faulty faultyNet
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"), kfake.ListenFn(faulty.listen))
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	mustPublish(t, p, numbered("orders", "k", 0, 10))
	var batches atomic.Int32
	watchProduce(c, "orders", func(sentBatch) bool {
		if batches.Add(1) == 2 {
			faulty.lose.Store(true)
		}
		return false
	})
	mustPublish(t, p, numbered("orders", "k", 10, 1500))
	require.EqualValues(t, 4, batches.Load(), "three batches, one of them twice")
	require.False(t, faulty.lose.Load())
	require.Equal(t, idsOf(numbered("orders", "k", 0, 1510)), published(t, c.ListenAddrs(), "orders")[0])
}

// TestLeaderMoves: partitions change brokers while messages are published.
func TestLeaderMoves(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.NumBrokers(3), kfake.SeedTopics(3, "orders"))
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	stop := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.ShufflePartitionLeaders()
			case <-stop:
				return
			}
		}
	})
	keys := []string{"a", "b", "c", "d", "e"}
	for from := 0; from < 2000; from += 100 {
		var msgs []brokers.Message
		for _, key := range keys {
			for _, m := range numbered("orders", key, from, 100) {
				m.ID = key + m.ID
				msgs = append(msgs, m)
			}
		}
		mustPublish(t, p, msgs)
	}
	close(stop)
	mover.Wait()
	got := map[string][]string{}
	for _, ids := range published(t, c.ListenAddrs(), "orders") {
		for _, id := range ids {
			got[id[:1]] = append(got[id[:1]], id[1:])
		}
	}
	for _, key := range keys {
		require.Equal(t, idsOf(numbered("orders", key, 0, 2000)), got[key], "key %s", key)
	}
}

// TestRecreatedTopic: the new topic's log knows nothing of the producer, whose
// sequence goes on.
func TestRecreatedTopic(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(2, "orders"))
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	mustPublish(t, p, numbered("orders", "k", 0, 100))
	require.NoError(t, c.DeleteTopic("orders"))
	for _, err := range p.Publish(t.Context(), numbered("orders", "k", 100, 10)) {
		require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err), "%v", err)
	}
	require.NoError(t, c.CreateTopic("orders", 2, nil))
	require.Eventually(t, func() bool {
		return p.Publish(t.Context(), numbered("orders", "k", 100, 1))[0] == nil
	}, 10*time.Second, 50*time.Millisecond)
	mustPublish(t, p, numbered("orders", "k", 101, 100))
}

// TestTooLargeWithUnknownLimit: without the right to read the topic's limit
// batches are halved, in order; the one message that is too large fails and
// holds its own key back, nobody else.
func TestTooLargeWithUnknownLimit(t *testing.T) {
	c := svctest.FakeKafka(t)
	addrs := c.ListenAddrs()
	limit := "20000"
	createTopic(t, addrs, "orders", 1, map[string]*string{"max.message.bytes": &limit})
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	var batches []int32
	watchProduce(c, "orders", func(b sentBatch) bool { batches = append(batches, b.records); return false })
	p := newPublisher(t, testConfig(addrs))
	msgs := numbered("orders", "", 0, 2000)
	var want []string
	for i := range msgs {
		msgs[i].Key = fmt.Sprintf("key-%d", i%10)
		msgs[i].Payload = make([]byte, 300)
	}
	msgs[777].Payload = make([]byte, 25_000)
	for i, err := range p.Publish(t.Context(), msgs) {
		switch {
		case i == 777:
			require.Equal(t, brokers.ClassRejected, brokers.ClassOf(err))
			require.ErrorContains(t, err, "max.message.bytes")
		case i > 777 && i%10 == 7:
			require.ErrorIs(t, err, brokers.ErrHeld)
		default:
			require.NoError(t, err)
			want = append(want, msgs[i].ID)
		}
	}
	require.Equal(t, want, published(t, addrs, "orders")[0])
	require.EqualValues(t, 500, batches[0])
	require.EqualValues(t, 250, batches[1])
	require.Less(t, len(batches), 200, "batches grow again after a success")
}

// TestKnownLimit: with the limit known nothing has to be halved.
func TestKnownLimit(t *testing.T) {
	c := svctest.FakeKafka(t)
	limit := "20000"
	createTopic(t, c.ListenAddrs(), "orders", 1, map[string]*string{"max.message.bytes": &limit})
	refused := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
		return len(r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records) > 20_000
	}})
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	msgs := numbered("orders", "k", 0, 1000)
	for i := range msgs {
		msgs[i].Payload = make([]byte, 300)
	}
	mustPublish(t, p, msgs)
	require.Zero(t, refused.Hits())
}

func TestForbiddenTopic(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(2, "orders", "secret"))
	for _, request := range []kmsg.Key{kmsg.Produce, kmsg.Metadata} {
		t.Run(request.Name(), func(t *testing.T) {
			forbidden := c.Fault(kfake.Fault{Keys: []kmsg.Key{request}, Topic: "secret", Err: kerr.TopicAuthorizationFailed, Count: -1})
			p := newPublisher(t, testConfig(c.ListenAddrs()))
			var msgs []brokers.Message
			for i := range 3000 {
				msgs = append(msgs, numbered("secret", fmt.Sprint(i%7), i, 1)[0], numbered("orders", fmt.Sprint(i%7), i, 1)[0])
			}
			for i, err := range p.Publish(t.Context(), msgs) {
				if msgs[i].Topic == "orders" {
					require.NoError(t, err)
					continue
				}
				require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err), "%v", err)
			}
			forbidden.Remove()
			require.Eventually(t, func() bool {
				return p.Publish(t.Context(), numbered("secret", "k", 0, 1))[0] == nil
			}, 10*time.Second, 50*time.Millisecond, "a right that was granted later counts")
		})
	}
}

// TestUnknownTopicIsLookedUpOnce: a burst to a topic that does not exist costs
// one look-up, and the topic is not created.
func TestUnknownTopicIsLookedUpOnce(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.AllowAutoTopicCreation(), kfake.SeedTopics(1, "orders"))
	lookups := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "typo", Observe: true, Count: -1})
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	start := time.Now()
	calls := 0
	for time.Since(start) < 500*time.Millisecond {
		err := p.Publish(t.Context(), numbered("typo", "k", 0, 10))[0]
		require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err))
		require.ErrorContains(t, err, "does not exist")
		calls++
	}
	require.Greater(t, calls, 100)
	require.Equal(t, 1, lookups.Hits())
	require.Nil(t, c.TopicInfo("typo"))
}

// TestStartsWithoutKafka: the first calls say that it is away; once it is
// there, the same publisher works.
func TestStartsWithoutKafka(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().(*net.TCPAddr)
	require.NoError(t, l.Close())

	cfg := testConfig([]string{addr.String()})
	cfg.PublishTimeout = 200 * time.Millisecond
	p := newPublisher(t, cfg)
	for _, err := range p.Publish(t.Context(), numbered("orders", "k", 0, 2)) {
		require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))
		require.ErrorContains(t, err, "connection refused", "the reason is more use than the timeout")
	}
	svctest.FakeKafka(t, kfake.Ports(addr.Port), kfake.SeedTopics(1, "orders"))
	require.Eventually(t, func() bool {
		return p.Publish(t.Context(), numbered("orders", "k", 0, 1))[0] == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// hang makes the broker sit on the first produce request that comes until the
// returned function is called; it is handled then.
func hang(t *testing.T, c *kfake.Cluster) (arrived <-chan struct{}, release func()) {
	came, let := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(let) })
	t.Cleanup(release)
	var first atomic.Bool
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if first.CompareAndSwap(false, true) {
			close(came)
			c.SleepControl(func() { <-let })
		}
		return nil, nil, false
	})
	return came, release
}

// TestSilentBroker: a broker that takes a batch and does not answer costs the
// call its timeout, not more, and the next call gets another connection.
func TestSilentBroker(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	cfg := testConfig(c.ListenAddrs())
	cfg.PublishTimeout = time.Second
	p := newPublisher(t, cfg)
	mustPublish(t, p, numbered("orders", "k", 0, 10))
	_, release := hang(t, c)
	start := time.Now()
	for _, err := range p.Publish(t.Context(), numbered("orders", "k", 10, 10)) {
		require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))
		require.ErrorContains(t, err, "not confirmed within 1s")
	}
	require.Less(t, time.Since(start), 3*time.Second)
	mustPublish(t, p, numbered("orders", "k", 10, 10)) // while the first is still held
	release()
}

// TestAbandonedBatchIsFenced: after a call has gone away with its batch under
// way, the partition's next batch begins a new producer epoch.
func TestAbandonedBatchIsFenced(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	var mu sync.Mutex
	var seen []sentBatch
	watchProduce(c, "orders", func(b sentBatch) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, b)
		return false
	})
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	mustPublish(t, p, numbered("orders", "k", 0, 10))
	mustPublish(t, p, numbered("orders", "k", 10, 10))
	arrived, release := hang(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	for _, err := range p.Publish(ctx, numbered("orders", "k", 20, 10)) {
		require.ErrorIs(t, err, context.Canceled)
	}
	release()
	mustPublish(t, p, numbered("orders", "k", 20, 20))
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, seen, 4)
	pid := seen[0].pid
	require.Equal(t, []sentBatch{
		{0, pid, 0, 0, 10}, {0, pid, 0, 10, 10}, {0, pid, 0, 20, 10},
		{0, pid, 1, 0, 20},
	}, seen)
}

// TestBuffersMayBeReused: a caller whose context has ended has its messages
// back, although a batch is still being sent (this test is for -race).
func TestBuffersMayBeReused(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(3, "orders"))
	p := newPublisher(t, testConfig(c.ListenAddrs()))
	msgs := numbered("orders", "k", 0, 2000)
	for i := range 30 {
		if i == 10 { // also while the topic is being looked up
			require.NoError(t, p.Close())
			p = newPublisher(t, testConfig(c.ListenAddrs()))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%10)*300*time.Microsecond)
		p.Publish(ctx, msgs)
		cancel()
		for j := range msgs {
			msgs[j].Payload[0]++
			msgs[j].Key = fmt.Sprint(j % (i + 1))
		}
	}
}

// TestMorePartitions: Kafka itself breaks the order of keys when partitions are
// added; the operator is told.
func TestMorePartitions(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	var log bytes.Buffer
	cfg := testConfig(c.ListenAddrs())
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p := newPublisher(t, cfg)
	mustPublish(t, p, numbered("orders", "k", 0, 10))
	addPartitions(t, c.ListenAddrs(), "orders", 3)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition}) // makes it look again
	mustPublish(t, p, numbered("orders", "k", 10, 10))
	var msgs []brokers.Message
	for i := range 100 {
		msgs = append(msgs, numbered("orders", fmt.Sprint(i), 20+i, 1)[0])
	}
	mustPublish(t, p, msgs)
	require.Len(t, published(t, c.ListenAddrs(), "orders"), 3)
	require.NoError(t, p.Close())
	require.Contains(t, log.String(), "number of partitions has changed")
	require.Contains(t, log.String(), "before=1 now=3")
}

// TestNothingIsSent with an ended context, nor after Close.
func TestNothingIsSent(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	sent := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
	p := kafka.NewPublisher(testConfig(c.ListenAddrs()))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range p.Publish(ended, numbered("orders", "k", 0, 10)) {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, p.Close())
	for _, err := range p.Publish(t.Context(), numbered("orders", "k", 0, 10)) {
		require.ErrorIs(t, err, brokers.ErrClosed)
	}
	require.Zero(t, sent.Hits())
}
