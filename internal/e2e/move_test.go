package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/relay"
)

// A live stream moves from RabbitMQ to Kafka while writers write all the time:
// nothing is missing and each key stays in order. Stopped first, the old pipeline
// leaves a clean split, each event on exactly one side; running on, it overlaps.
// The same topic has another name on each broker, on RabbitMQ spread over queues.
func TestStreamMovesFromRabbitMQToKafka(t *testing.T) {
	for name, overlap := range map[string]bool{"old one stopped first": false, "old one running on": true} {
		t.Run(name, func(t *testing.T) { moveStream(t, overlap) })
	}
}

func moveStream(t *testing.T, overlap bool) {
	amqpURL, kafkaBrokers := svctest.RabbitMQ(t), svctest.RealKafka(t)
	databaseURL, shop := producerDatabase(t)
	pool, err := pgxpool.New(t.Context(), as(t, databaseURL, "outbox_relay"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)

	const queues = 3
	queue, topic := svctest.Unique("moving"), createTopic(t, kafkaBrokers, 3)
	toRabbit := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: amqpURL, Queues: queues, Declare: true})
	t.Cleanup(func() { require.NoError(t, toRabbit.Close()) })
	toKafka := kafka.NewPublisher(kafka.Config{Brokers: kafkaBrokers})
	t.Cleanup(func() { require.NoError(t, toKafka.Close()) })
	filter := relay.Filter{Topics: []string{"orders"}}
	rename := func(to string) func(string) string {
		return func(from string) string { return map[string]string{"orders": to}[from] }
	}

	stopWriting := keepWriting(t, as(t, databaseURL, "outbox_writer"))
	stopOld := runPipeline(t, pool, relay.Pipeline{Name: "rabbitmq", To: toRabbit, Filter: filter, Topic: rename(queue)})
	old := collect(t, rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: amqpURL, Declare: true}, rabbitmq.QueueNames(queue, queues)...))
	require.Eventually(t, func() bool { return old.count() > 500 }, time.Minute, 10*time.Millisecond, "the old pipeline works")
	if !overlap {
		require.NoError(t, stopOld())
	}
	runPipeline(t, pool, relay.Pipeline{
		Name: "kafka", To: toKafka, Filter: filter, Topic: rename(topic), Start: relay.Start{Pipeline: "rabbitmq"},
	})
	moved := collect(t, kafka.NewSubscriber(kafka.Config{Brokers: kafkaBrokers, Group: topic}, topic))
	require.Eventually(t, func() bool { return moved.count() > 500 }, time.Minute, 10*time.Millisecond, "the new pipeline works")
	require.NoError(t, stopOld())
	require.NoError(t, relay.DropPipeline(t.Context(), pool, "", "rabbitmq", relay.DropOptions{}))
	stopWriting()

	written := writes(t, shop)
	var effects []history.Effect
	require.Eventually(t, func() bool {
		effects = union(old, moved, overlap)
		return len(effects) >= len(written)
	}, time.Minute, 50*time.Millisecond, "every order has come out")
	for _, v := range history.Check(written, effects) {
		t.Error(v)
	}
	if !overlap {
		require.Equal(t, len(written), old.count()+moved.count(), "each on one side")
	}
	t.Logf("%d orders: %d through RabbitMQ, %d through Kafka", len(written), old.count(), moved.count())
}

// union puts what came through the new broker after what came through the old
// one, without what had come through both if they overlapped.
func union(old, moved *collector, overlap bool) []history.Effect {
	seen := map[history.Write]bool{}
	var effects []history.Effect
	for i, c := range []*collector{old, moved} {
		c.mu.Lock()
		for _, e := range c.effects {
			w := history.Write{Key: e.Key, N: e.N}
			if i == 1 && overlap && seen[w] {
				continue
			}
			seen[w] = true
			e.Seq += int64(i) * 1_000_000_000
			effects = append(effects, e)
		}
		c.mu.Unlock()
	}
	return effects
}

func runPipeline(t *testing.T, pool *pgxpool.Pool, p relay.Pipeline) (stop func() error) {
	t.Helper()
	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{p}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// keepWriting has four writers commit orders, and other events, until stop.
func keepWriting(t *testing.T, databaseURL string) (stop func()) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), databaseURL)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for ctx.Err() == nil {
				if err := writeOrder(context.Background(), pool); err != nil {
					return err
				}
			}
			return nil
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		pool.Close()
	})
	t.Cleanup(stop)
	return stop
}

func writeOrder(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		user := fmt.Sprint("user-", rand.IntN(users))
		var n int64
		if err := tx.QueryRow(ctx, `UPDATE users SET orders = orders + 1 WHERE id = $1 RETURNING orders`, user).Scan(&n); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO orders (user_id, n) VALUES ($1, $2)`, user, n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, payload)
			SELECT topic, $1, 'placed', '/shop', convert_to($2, 'UTF8') FROM unnest(ARRAY['orders', 'nobody']) topic`, user, strconv.FormatInt(n, 10))
		return err
	})
}

// collector notes what a subscriber delivers, in order.
type collector struct {
	mu      sync.Mutex
	effects []history.Effect
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.effects)
}

func collect(t *testing.T, from brokers.Subscriber) *collector {
	t.Helper()
	c := &collector{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- from.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
			n, err := strconv.ParseInt(string(d.Message.Payload), 10, 64)
			if err != nil {
				t.Error(err)
			}
			c.mu.Lock()
			c.effects = append(c.effects, history.Effect{Key: d.Message.Key, N: n, Seq: int64(len(c.effects))})
			c.mu.Unlock()
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, from.Close())
	})
	return c
}

// Topics are mapped to exchange and routing key on RabbitMQ, as relay.yaml has it.
func TestRoutingKeysOnRabbitMQ(t *testing.T) {
	amqpURL := svctest.RabbitMQ(t)
	databaseURL, shop := database(t, migrate.Outbox(""))
	prefix := svctest.Unique("shop")
	startRelay(t, as(t, databaseURL, "outbox_relay"), fmt.Sprintf(`    rabbitmq: {url: %q, exchange: amq.topic, routing_key: "{topic}.{type}", declare: true}
    topics: {orders: %q, "*": %q}
`, amqpURL, prefix+".orders.v1", prefix+".{topic}"))
	for i, topic := range []string{"orders", "bills", "orders"} {
		_, err := shop.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ($1, 'k', 'placed', '/shop', convert_to($2, 'UTF8'))`,
			topic, strconv.Itoa(i))
		require.NoError(t, err)
	}
	for queue, want := range map[string][]int64{prefix + ".orders.v1.placed": {0, 2}, prefix + ".bills.placed": {1}} {
		c := collect(t, rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: amqpURL, Declare: true}, queue))
		require.Eventually(t, func() bool { return c.count() == len(want) }, 30*time.Second, 10*time.Millisecond, queue)
		for i, n := range want {
			require.Equal(t, n, c.effects[i].N)
		}
	}
}
