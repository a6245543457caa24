package rabbitmq_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// owners notes, for each queue, who had its latest message, and what was wrong
// with the order.
type owners struct {
	mu    sync.Mutex
	of    map[string]string
	next  map[string]int
	wrong []string
}

func (o *owners) handle(member string) brokers.Handle {
	return func(_ context.Context, d *brokers.Delivery) {
		o.mu.Lock()
		defer o.mu.Unlock()
		queue := d.Origin.Topic
		if want := strconv.Itoa(o.next[queue]); d.Message.ID != want {
			o.wrong = append(o.wrong, queue+": "+d.Message.ID+" came, not "+want)
		}
		o.next[queue]++
		o.of[queue] = member
		_ = d.Ack() // stale: it comes again, and out of order
	}
}

// shares is the number of queues of each member.
func (o *owners) shares() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := map[string]int{}
	for member := range maps.Values(o.of) {
		n[member]++
	}
	return n
}

// Members that come later get their share of the queues, and those that are left
// get the queues of one that goes; every queue stays in order and nothing comes
// twice.
func TestQueuesAreShared(t *testing.T) {
	t.Parallel()
	url, topic := svctest.RabbitMQ(t), svctest.Unique("shared")
	const queues = 4
	names := rabbitmq.QueueNames(topic, queues)
	o := &owners{of: map[string]string{}, next: map[string]int{}}
	join := func(member string) (stop func()) {
		sub := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: url, Declare: true}, names...)
		done := make(chan error, 1)
		go func() { done <- sub.Subscribe(context.Background(), o.handle(member)) }()
		stop = sync.OnceFunc(func() {
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(stop)
		return stop
	}
	publisher := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: url, Declare: true})
	t.Cleanup(func() { require.NoError(t, publisher.Close()) })
	n := 0
	publish := func() {
		t.Helper()
		for _, queue := range names {
			m := message(queue, "key", n)
			m.ID = strconv.Itoa(n)
			requireConfirmed(t, publisher.Publish(t.Context(), []brokers.Message{m}))
		}
		n++
	}
	shared := func(want map[string]int) {
		t.Helper()
		require.Eventually(t, func() bool {
			publish()
			return maps.Equal(o.shares(), want)
		}, patience+20*time.Second, 20*time.Millisecond, "shares")
	}
	publish() // makes the queues
	stop := join("a")
	shared(map[string]int{"a": 4})
	join("b")
	shared(map[string]int{"a": 2, "b": 2})
	stop()
	shared(map[string]int{"b": 4})
	require.Eventually(t, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return slices.Min(slices.Collect(maps.Values(o.next))) == n
	}, patience, 10*time.Millisecond)
	require.Empty(t, o.wrong)
}
