//go:build faults

package e2e

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// Orders whose handler kills the process: it comes up again each time, and each
// of them becomes a dead letter, and nothing else does.
func TestOrdersThatKillTheProcess(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		m := w.join(memberSpec{Name: "only", Session: 2 * time.Second, Attempts: 2, PassKey: true})
		stop := w.write(load{perSecond: 100, kind: everyNth("killer", 120)})
		crashes := 0
		w.eventually(func() bool { return w.shopNumber(killersSQL) > 1 }, "two orders that kill")
		stop()
		written := len(writes(t, w.shop))
		w.eventually(func() bool {
			if !m.runs() {
				crashes++
				m.run()
			}
			return w.effects()+w.number(deadSQL) >= written
		}, "all orders")
		dead := w.judge(false)
		killers := w.shopNumber(killersSQL)
		require.Equal(t, killers, w.number(`SELECT count(*) FROM inbox.dead WHERE reason = 'crashed' AND attempts = 2`))
		require.Len(t, dead, killers, "nothing else dies")
		require.LessOrEqual(t, crashes, 3*killers, "unmarked once, then as often as it has attempts")
		t.Logf("%d crashes for %d orders", crashes, killers)
	})
}

const killersSQL = `SELECT count(*) FROM orders WHERE kind = 'killer'`

func (w *faultWorld) shopNumber(sql string) (n int) {
	w.Helper()
	require.NoError(w, w.shop.QueryRow(context.Background(), sql).Scan(&n))
	return n
}

// What the handler needs is away under load: nothing dies, and when it is back
// everything takes effect in order, by itself.
func TestDependencyAway(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		var away atomic.Bool
		var calls atomic.Int64
		in := w.host(memberSpec{Attempts: 2}, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderPlaced]) error {
			if calls.Add(1); away.Load() {
				return errors.New("the warehouse does not answer")
			}
			_, err := tx.Exec(ctx, insertEffect+` VALUES ($1, $2, $3, 'host')`, e.Data.UserID, e.Data.N, e.ID)
			return err
		})
		stop := w.write(load{perSecond: 300})
		w.eventually(func() bool { return w.effects() > 100 }, "the consumer works")
		for range 3 {
			away.Store(true)
			w.eventually(func() bool { return len(in.Stats().Circuits) == 1 }, "the circuit opens")
			before := calls.Load()
			w.eventually(func() bool { return calls.Load() > before+10 }, "probes")
			away.Store(false)
			effects := w.effects()
			w.eventually(func() bool { return in.Stats().Circuits == nil && w.effects() > effects+100 }, "it goes on")
		}
		stop()
		require.Empty(t, w.judge(true))
	})
}

// host runs a consumer in this process, until the test ends.
func (w *faultWorld) host(spec memberSpec, handle func(context.Context, pgx.Tx, inbox.Event[orderPlaced]) error) *inbox.Inbox {
	w.Helper()
	spec.Topic, spec.From, spec.Kafka, spec.RabbitMQ = w.broker.topic, w.broker.from, w.broker.kafka, w.broker.rabbitMQ
	spec.Session = 2 * time.Second
	placed := orderPlacedType(spec.Topic)
	cfg := spec.inbox(avro.SingleObject(placed.Codec.Schema()))
	cfg.RetryBase, cfg.RetryMax = 100*time.Millisecond, 500*time.Millisecond // a message lives long enough to see others fail
	cfg.Logger = slog.New(slog.DiscardHandler)
	in, err := inbox.New(w.consumer, cfg)
	require.NoError(w, err)
	inbox.On(in, placed, handle)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		require.NoError(w, <-done)
	})
	return in
}

// Bytes that nobody can read, as they are: without any header, and as an order
// that does not decode. The row has them unchanged, and so has the copy.
func TestRawDeadLetters(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		w := newFaultWorld(t, b)
		to := svctest.Unique("dead")
		if b.kafka != nil {
			to = createTopic(t, b.kafka, 1)
		}
		w.host(memberSpec{DeadLetterTo: to}, func(context.Context, pgx.Tx, inbox.Event[orderPlaced]) error {
			return errors.New("not to be called")
		})
		bare, garbled := []byte("\x00\x01\xff bare \xfe"), []byte("\xc3\x01garbled\x00\xff")
		b.publishRaw(t, bare, nil)
		b.publishRaw(t, garbled, map[string]string{"specversion": "1.0", "id": "\"7\"", "source": "/elsewhere", "type": "shop.order.placed"})
		for reason, payload := range map[string][]byte{"no_type": bare, "undecodable": garbled} {
			w.eventually(func() bool {
				return w.number(`SELECT count(*) FROM inbox.dead WHERE state = 'moved' AND reason = $1 AND payload = $2`, reason, payload) == 1
			}, "the row of %s", reason)
		}
		spec := memberSpec{Topic: to, Kafka: b.kafka, RabbitMQ: b.rabbitMQ, From: []string{to}, Session: 2 * time.Second}
		copies := collectAll(t, spec.subscriber())
		w.eventually(func() bool { return len(copies()) == 2 }, "two copies")
		reasons := map[string]brokers.Message{}
		for _, m := range copies() {
			reasons[m.Headers["outboxkit-dead-reason"]] = m
		}
		require.Equal(t, bare, reasons["no_type"].Payload)
		require.Equal(t, garbled, reasons["undecodable"].Payload)
		require.Equal(t, `"7"`, reasons["undecodable"].ID)
		require.Equal(t, "/elsewhere", reasons["undecodable"].Source)
		if b.kafka != nil {
			require.Equal(t, rawKey, reasons["no_type"].Key)
		}
	})
}

const rawKey = "\xff\x00key"

// publishRaw sends bytes past the adapters.
func (b faultBroker) publishRaw(t *testing.T, payload []byte, attributes map[string]string) {
	t.Helper()
	if b.kafka != nil {
		cfg := sarama.NewConfig()
		cfg.Producer.Return.Successes = true
		p, err := sarama.NewSyncProducer(b.kafka, cfg)
		require.NoError(t, err)
		m := &sarama.ProducerMessage{Topic: b.topic, Key: sarama.StringEncoder(rawKey), Value: sarama.ByteEncoder(payload)}
		for name, value := range attributes {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte("ce_" + name), Value: []byte(value)})
		}
		_, _, err = p.SendMessage(m)
		require.NoError(t, err)
		require.NoError(t, p.Close())
		return
	}
	conn, err := amqp.Dial(b.rabbitMQ)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // all is confirmed
	m := amqp.Publishing{Body: payload, Headers: amqp.Table{}, DeliveryMode: amqp.Persistent}
	for name, value := range attributes {
		m.Headers["cloudEvents:"+name] = value
	}
	require.Eventually(t, func() bool { // the consumer declares its queue
		ch, err := conn.Channel()
		require.NoError(t, err)
		if _, err := ch.QueueDeclarePassive(b.from[0], true, false, false, false, nil); err != nil {
			return false
		}
		require.NoError(t, ch.Confirm(false))
		c, err := ch.PublishWithDeferredConfirm("", b.from[0], true, false, m)
		require.NoError(t, err)
		return c.Wait()
	}, time.Minute, 50*time.Millisecond)
}

// collectAll returns what a subscriber delivers.
func collectAll(t *testing.T, from brokers.Subscriber) (all func() []brokers.Message) {
	t.Helper()
	var mu sync.Mutex
	var got []brokers.Message
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- from.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, d.Message)
			_ = d.Ack() // stale: it comes again
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, from.Close())
	})
	return func() []brokers.Message {
		mu.Lock()
		defer mu.Unlock()
		return got[:len(got):len(got)]
	}
}
