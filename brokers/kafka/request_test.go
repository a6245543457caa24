package kafka_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// noise returns messages with payloads that no codec makes smaller.
func noise(random *rand.ChaCha8, key string, from, n, size int) []brokers.Message {
	msgs := numbered("orders", key, from, n)
	for i := range msgs {
		msgs[i].Payload = make([]byte, size)
		_, _ = random.Read(msgs[i].Payload) // never fails
		if key == "" {
			msgs[i].Key = fmt.Sprintf("key-%d", i)
		}
	}
	return msgs
}

// TestRequestsAreBounded: no request is larger than the bound, with any codec, neither
// one of many partitions nor one large batch. A message that would need a larger one is
// refused without being sent, and holds nobody back but its own key.
func TestRequestsAreBounded(t *testing.T) {
	const bound, around = 100_000, 14 // the request's length, kind, version, number and length of the client's name
	random := rand.NewChaCha8([32]byte{})
	for attribute, codec := range []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
	} {
		t.Run(codec.String(), func(t *testing.T) {
			c := svctest.FakeKafka(t, kfake.SeedTopics(40, "orders"))
			var mu sync.Mutex
			largest := 0
			c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				mu.Lock()
				defer mu.Unlock()
				req := kreq.(*kmsg.ProduceRequest)
				largest = max(largest, around+len("outboxkit")+len(req.AppendTo(nil)))
				for _, rp := range req.Topics[0].Partitions {
					var b kmsg.RecordBatch
					if err := b.ReadFrom(rp.Records); err != nil {
						return nil, err, true
					}
					if int(b.Attributes&7) != attribute {
						return nil, fmt.Errorf("codec %d, configured is %d", b.Attributes&7, attribute), true
					}
				}
				return nil, nil, false
			})
			cfg := testConfig(c.ListenAddrs())
			ours := cfg.Sarama
			cfg.MaxRequestBytes = bound
			cfg.Sarama = func(sc *sarama.Config) {
				require.Equal(t, sarama.CompressionSnappy, sc.Producer.Compression, "the default")
				ours(sc)
				sc.Producer.Compression = codec
			}
			p := newPublisher(t, cfg)
			mustPublish(t, p, noise(random, "", 0, 400, 2000))
			mustPublish(t, p, noise(random, "one partition", 400, 200, 2000))

			msgs := append(noise(random, "large", 600, 3, 10), noise(random, "small", 603, 1, 10)...)
			msgs[1].Payload = make([]byte, bound)
			errs := p.Publish(t.Context(), msgs)
			require.NoError(t, errs[0])
			require.Equal(t, brokers.ClassRejected, brokers.ClassOf(errs[1]))
			require.ErrorContains(t, errs[1], "do not fit into a request of 100000")
			require.ErrorIs(t, errs[2], brokers.ErrHeld)
			require.NoError(t, errs[3])

			mu.Lock()
			defer mu.Unlock()
			require.LessOrEqual(t, largest, bound)
			require.Greater(t, largest, bound*3/4, "the bound is made use of")
		})
	}
}
