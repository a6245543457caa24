package rabbitmq_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// consumer collects what a subscriber delivers, and settles nothing itself.
type consumer struct {
	got    chan *brokers.Delivery
	ctx    chan context.Context
	cancel context.CancelFunc
	done   chan error
	sub    *rabbitmq.Subscriber
}

func consume(t testing.TB, cfg rabbitmq.SubscriberConfig, queues ...string) *consumer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &consumer{
		got: make(chan *brokers.Delivery, 10_000), ctx: make(chan context.Context, 10_000),
		cancel: cancel, done: make(chan error, 1), sub: rabbitmq.NewSubscriber(cfg, queues...),
	}
	go func() {
		c.done <- c.sub.Subscribe(ctx, func(ctx context.Context, d *brokers.Delivery) {
			c.ctx <- ctx
			c.got <- d
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, c.sub.Close())
	})
	return c
}

func (c *consumer) next(t testing.TB) *brokers.Delivery {
	t.Helper()
	select {
	case d := <-c.got:
		return d
	case err := <-c.done:
		require.FailNow(t, "Subscribe has returned", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "no delivery")
	}
	return nil
}

func (c *consumer) take(t testing.TB, n int) []*brokers.Delivery {
	t.Helper()
	ds := make([]*brokers.Delivery, n)
	for i := range ds {
		ds[i] = c.next(t)
	}
	return ds
}

func publishNumbered(t testing.TB, url, queue string, from, to int) {
	t.Helper()
	p := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: url})
	var msgs []brokers.Message
	for n := from; n < to; n++ {
		msgs = append(msgs, message(queue, "key", n))
	}
	requireConfirmed(t, p.Publish(t.Context(), msgs))
	require.NoError(t, p.Close())
}

func requireNumbered(t testing.TB, queue string, ds []*brokers.Delivery, from int) {
	t.Helper()
	for i, d := range ds {
		require.Equal(t, message(queue, "key", from+i).ID, d.Message.ID)
	}
}

// TestStaleAck: the connection is cut while deliveries are unsettled; settling
// them afterwards touches nothing on the connection that replaced it, although
// the delivery tags are the same.
func TestStaleAck(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	publishNumbered(t, url, queue, 0, 30)
	through := newProxy(t, url)
	c := consume(t, rabbitmq.SubscriberConfig{URL: through.url, Prefetch: 10, DrainTimeout: 100 * time.Millisecond}, queue)

	old := c.take(t, 10)
	oldCtx := <-c.ctx
	require.NoError(t, old[0].Ack())
	require.NoError(t, old[1].Ack())
	require.NoError(t, old[2].Ack())
	c.take(t, 3)
	through.cut()
	<-oldCtx.Done()
	again := c.take(t, 10)
	// Acks on their way when the connection was cut may be lost.
	first := 0
	for ; again[0].Message.ID != message(queue, "key", first).ID; first++ {
		require.Less(t, first, 4)
	}
	requireNumbered(t, queue, again, first)
	require.True(t, again[0].Redelivered)
	for i, d := range old[3:] {
		if i%2 == 0 {
			require.ErrorIs(t, d.Ack(), brokers.ErrStale)
		} else {
			d.Release()
		}
	}
	require.NoError(t, again[0].Ack())
	c.cancel()
	require.NoError(t, <-c.done)
	require.Eventually(t, func() bool { return ready(t, url, queue) == 30-first-1 }, patience, 10*time.Millisecond,
		"stale settlements must touch nothing")
}

// TestSettledTwice: the broker would close the channel for it.
func TestSettledTwice(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	publishNumbered(t, url, queue, 0, 2)
	c := consume(t, rabbitmq.SubscriberConfig{URL: url}, queue)
	ds := c.take(t, 2)
	require.NoError(t, ds[0].Ack())
	require.Error(t, ds[0].Ack())
	ds[0].Release()
	require.NoError(t, ds[1].Ack())
}

// TestDrain: after its context ended Subscribe waits for what is being handled,
// delivers no more and returns the rest to the queue in order.
func TestDrain(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	publishNumbered(t, url, queue, 0, 100)
	ctx, cancel := context.WithCancel(t.Context())
	sub := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: url, Prefetch: 50}, queue)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	held := make(chan *brokers.Delivery, 1)
	returned := make(chan error, 1)
	go func() {
		returned <- sub.Subscribe(ctx, func(dctx context.Context, d *brokers.Delivery) {
			if d.Message.ID != message(queue, "key", 5).ID {
				_ = d.Ack() // a failure shows as a message that comes again
				return
			}
			cancel()
			held <- d
			if dctx.Err() != nil {
				panic("the context has ended before the drain")
			}
		})
	}()
	d := <-held
	select {
	case <-returned:
		require.FailNow(t, "Subscribe has not waited")
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, d.Ack())
	require.NoError(t, <-returned)
	next := consume(t, rabbitmq.SubscriberConfig{URL: url, DrainTimeout: time.Millisecond}, queue)
	requireNumbered(t, queue, next.take(t, 94), 6)
}

// TestSingleActiveConsumer: members of a queue that Declare made take turns, not
// parts.
func TestSingleActiveConsumer(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := svctest.Unique("declared")
	t.Cleanup(func() {
		withChannel(t, url, func(ch *amqp.Channel) {
			_, err := ch.QueueDelete(queue, false, false, false)
			require.NoError(t, err)
		})
	})
	cfg := rabbitmq.SubscriberConfig{URL: url, Declare: true, Prefetch: 10, DrainTimeout: time.Millisecond}
	a := consume(t, cfg, queue)
	require.Eventually(t, func() bool { return hasConsumer(url, queue) }, patience, 10*time.Millisecond)
	b := consume(t, cfg, queue)
	publishNumbered(t, url, queue, 0, 40)
	ds := a.take(t, 10)
	requireNumbered(t, queue, ds, 0)
	for _, d := range ds[:5] {
		require.NoError(t, d.Ack())
	}
	requireNumbered(t, queue, a.take(t, 5), 10)
	require.Empty(t, b.got)
	a.cancel()
	require.NoError(t, <-a.done)
	requireNumbered(t, queue, b.take(t, 10), 5)
}

func hasConsumer(url, queue string) bool {
	conn, err := amqp.Dial(url)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return false
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return err == nil && q.Consumers > 0
}

func TestSubscribePermanentErrors(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	u, err := amqp.ParseURI(url)
	require.NoError(t, err)
	u.Password = "wrong"
	for name, c := range map[string]struct {
		cfg    rabbitmq.SubscriberConfig
		queues []string
		want   string
	}{
		"missing queue":  {rabbitmq.SubscriberConfig{URL: url}, []string{queue, "no-such-queue"}, "no-such-queue"},
		"wrong password": {rabbitmq.SubscriberConfig{URL: u.String()}, []string{queue}, "password not allowed"},
		"no queues":      {rabbitmq.SubscriberConfig{URL: url}, nil, "name at least one"},
		"bad config":     {rabbitmq.SubscriberConfig{}, []string{queue}, "SubscriberConfig.URL is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			sub := rabbitmq.NewSubscriber(c.cfg, c.queues...)
			t.Cleanup(func() { require.NoError(t, sub.Close()) })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := sub.Subscribe(ctx, func(context.Context, *brokers.Delivery) {})
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestQueuesAreIndependent: hash queues are consumed side by side, each key in
// one of them and in order.
func TestQueuesAreIndependent(t *testing.T) {
	const n, keys, perKey = 4, 20, 50
	url := svctest.RabbitMQ(t)
	topic := svctest.Unique("spread")
	withChannel(t, url, func(ch *amqp.Channel) {
		for _, q := range rabbitmq.QueueNames(topic, n) {
			declareQuorum(t, ch, q, nil)
			t.Cleanup(func() {
				withChannel(t, url, func(ch *amqp.Channel) { _, _ = ch.QueueDelete(q, false, false, false) })
			})
		}
	})
	var msgs []brokers.Message
	for i := range perKey {
		for k := range keys {
			msgs = append(msgs, message(topic, fmt.Sprint("key-", k), i))
		}
	}
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url, Queues: n})
	requireConfirmed(t, p.Publish(t.Context(), msgs))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	seen, queueOf, total := map[string]int{}, map[string]string{}, 0
	sub := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: url}, rabbitmq.QueueNames(topic, n)...)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	err := sub.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
		mu.Lock()
		defer mu.Unlock()
		key := d.Message.Key
		if d.Message.ID == message(topic, key, seen[key]).ID && d.Message.Topic == topic {
			seen[key]++
		}
		queueOf[key+d.Origin.Topic] = key
		_ = d.Ack()
		if total++; total == len(msgs) {
			cancel()
		}
	})
	require.NoError(t, err)
	require.Len(t, queueOf, keys, "each key in one queue")
	for key, count := range seen {
		require.Equal(t, perKey, count, key)
	}
}

// TestLastAcksGetThrough: a burst of acks right before the end counts.
func TestLastAcksGetThrough(t *testing.T) {
	const count = 200
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	publishNumbered(t, url, queue, 0, count)
	c := consume(t, rabbitmq.SubscriberConfig{URL: url, Prefetch: count}, queue)
	held := c.take(t, count)
	c.cancel()
	for i := range held { // backwards, so that none could be combined
		require.NoError(t, held[count-1-i].Ack())
	}
	require.NoError(t, <-c.done)
	publishNumbered(t, url, queue, count, count+1)
	next := consume(t, rabbitmq.SubscriberConfig{URL: url, DrainTimeout: time.Millisecond}, queue)
	requireNumbered(t, queue, next.take(t, 1), count)
}

// TestReleaseLetsOthersFinish: an inbox that is told to stop gives back what has
// not begun while its handlers still run. These must not be cut off.
func TestReleaseLetsOthersFinish(t *testing.T) {
	for _, stopping := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopping=%v", stopping), func(t *testing.T) {
			url := svctest.RabbitMQ(t)
			queue := newQueue(t, url, nil)
			publishNumbered(t, url, queue, 0, 10)
			c := consume(t, rabbitmq.SubscriberConfig{URL: url, Prefetch: 10}, queue)
			ds := c.take(t, 10)
			ctx := <-c.ctx
			if stopping {
				c.cancel()
			}
			for _, d := range ds[1:] {
				d.Release()
			}
			select {
			case <-ctx.Done():
				require.FailNow(t, "the running handler was cut off")
			case <-time.After(200 * time.Millisecond):
			}
			require.NoError(t, ds[0].Ack())
			<-ctx.Done()
			if stopping {
				require.NoError(t, <-c.done)
				require.Eventually(t, func() bool { return ready(t, url, queue) == 9 }, patience, 10*time.Millisecond)
				return
			}
			again := c.take(t, 9)
			requireNumbered(t, queue, again, 1)
			for _, d := range again {
				require.NoError(t, d.Ack())
			}
		})
	}
}

// Queues keep nothing that was settled, and AMQP does not show a TTL.
func TestRetentionIsNotKnown(t *testing.T) {
	t.Parallel()
	s := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: "amqp://localhost"}, "q")
	_, ok, err := s.Retention(t.Context())
	require.NoError(t, err)
	require.False(t, ok)
	_, _, err = rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{}, "q").Retention(t.Context())
	require.ErrorContains(t, err, "URL is empty")
	require.NoError(t, s.Close())
}
