package kafka_test

import (
	"context"
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

const patience = 30 * time.Second

// next returns the next value of ch, or fails the test.
func next[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing comes")
		panic("unreachable")
	}
}

// delivery is what handle was called with.
type delivery struct {
	*brokers.Delivery
	ctx context.Context
}

// collect hands every delivery to the test.
func collect(ch chan<- delivery) brokers.Handle {
	return func(ctx context.Context, d *brokers.Delivery) {
		select {
		case ch <- delivery{d, ctx}:
		case <-ctx.Done():
		}
	}
}

func subscriberConfig(addrs []string, group string) kafka.Config {
	cfg := testConfig(addrs)
	cfg.Group = group
	cfg.DrainTimeout = 300 * time.Millisecond
	return cfg
}

func TestSubscribeToUnknownTopic(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.AllowAutoTopicCreation(), kfake.SeedTopics(1, "orders"))
	s := kafka.NewSubscriber(subscriberConfig(c.ListenAddrs(), "g"), "orders", "typo")
	err := next(t, subscribe(t, s, func(context.Context, *brokers.Delivery) {}))
	require.ErrorContains(t, err, "typo")
	require.ErrorContains(t, err, "the topic does not exist: create it")
	require.Nil(t, c.TopicInfo("typo"), "it is not created")
}

func TestSubscribeToTopicCreatedAMomentLater(t *testing.T) {
	c := svctest.FakeKafka(t)
	lookups := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "orders", Observe: true, Count: -1})
	ch := make(chan delivery)
	s := kafka.NewSubscriber(subscriberConfig(c.ListenAddrs(), "g"), "orders")
	subscribe(t, s, collect(ch))
	require.NoError(t, lookups.Wait(t.Context(), 1))
	require.NoError(t, c.CreateTopic("orders", 1, nil))
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 1))
	require.Equal(t, "00000", next(t, ch).Message.ID)
}

func TestSubscribeWithoutRights(t *testing.T) {
	for name, tt := range map[string]struct {
		request kmsg.Key
		err     *kerr.Error
		says    string
	}{
		"topic": {kmsg.Metadata, kerr.TopicAuthorizationFailed, "lacks rights on the topic"},
		"group": {kmsg.JoinGroup, kerr.GroupAuthorizationFailed, "lacks READ on the consumer group"},
	} {
		t.Run(name, func(t *testing.T) {
			c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
			c.Fault(kfake.Fault{Keys: []kmsg.Key{tt.request}, Err: tt.err, Count: -1})
			s := kafka.NewSubscriber(subscriberConfig(c.ListenAddrs(), "g"), "orders")
			require.ErrorContains(t, next(t, subscribe(t, s, func(context.Context, *brokers.Delivery) {})), tt.says)
		})
	}
}

// TestOffsetNoLongerThere: events that were deleted before the group has read
// them are not skipped in silence.
func TestOffsetNoLongerThere(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	cfg := subscriberConfig(c.ListenAddrs(), "g")
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 100))
	ch := make(chan delivery)
	first := kafka.NewSubscriber(cfg, "orders")
	subscribe(t, first, collect(ch))
	for range 10 {
		require.NoError(t, next(t, ch).Ack())
	}
	require.NoError(t, first.Close()) // commits 10
	require.NoError(t, c.DeleteRecords("orders", 0, 50))

	err := next(t, subscribe(t, kafka.NewSubscriber(cfg, "orders"), collect(ch)))
	require.ErrorContains(t, err, "committed offset lies outside")
	require.ErrorContains(t, err, "--reset-offsets")
}

// TestDrainTimeout: what is not settled in time ends with its context, whether
// it is being processed or handle is still blocked with it; and comes again.
func TestDrainTimeout(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	cfg := subscriberConfig(c.ListenAddrs(), "g")
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 100))
	ch := make(chan delivery)
	s := kafka.NewSubscriber(cfg, "orders")
	done := subscribe(t, s, collect(ch))
	one, two := next(t, ch), next(t, ch)
	require.NoError(t, one.Ack())
	closed := time.Now()
	go func() { _ = s.Close() }()
	next(t, two.ctx.Done())
	require.GreaterOrEqual(t, time.Since(closed), cfg.DrainTimeout, "its grace has been cut short")
	require.ErrorIs(t, context.Cause(two.ctx), brokers.ErrStale)
	require.NoError(t, next(t, done))
	require.ErrorIs(t, two.Ack(), brokers.ErrStale)

	subscribe(t, kafka.NewSubscriber(cfg, "orders"), collect(ch))
	require.Equal(t, two.Message.ID, next(t, ch).Message.ID)
}

// TestMaxUnsettled: however much is done behind it, nothing is delivered that
// far behind a delivery that is not settled.
func TestMaxUnsettled(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	cfg := subscriberConfig(c.ListenAddrs(), "g")
	cfg.MaxUnsettled = 10
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 100))
	ch := make(chan delivery)
	subscribe(t, kafka.NewSubscriber(cfg, "orders"), collect(ch))
	first := next(t, ch)
	for range 9 {
		require.NoError(t, next(t, ch).Ack())
	}
	select {
	case d := <-ch:
		require.FailNow(t, "too far ahead", "%s", d.Origin)
	case <-time.After(300 * time.Millisecond): // long enough to catch it in most runs
	}
	require.NoError(t, first.Ack())
	require.Equal(t, "00010", next(t, ch).Message.ID)
}

// TestRedelivered: a message that this subscriber has had before says so.
func TestRedelivered(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 3))
	ch := make(chan delivery)
	subscribe(t, kafka.NewSubscriber(subscriberConfig(c.ListenAddrs(), "g"), "orders"), collect(ch))
	one, two := next(t, ch), next(t, ch)
	require.False(t, one.Redelivered)
	require.NoError(t, one.Ack())
	two.Release()
	for {
		d := next(t, ch)
		if d.Message.ID == two.Message.ID {
			require.True(t, d.Redelivered)
			return
		}
		d.Release() // handed over before the session ended
	}
}

func TestSubscribeOnlyOnceAtATime(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 1))
	ch := make(chan delivery)
	s := kafka.NewSubscriber(subscriberConfig(c.ListenAddrs(), "g"), "orders")
	subscribe(t, s, collect(ch))
	require.NoError(t, next(t, ch).Ack())
	require.ErrorContains(t, s.Subscribe(t.Context(), collect(ch)), "running already")
}

// TestThrownOutOfTheGroup: somebody else has the partition now, so there is no
// grace for what is still being processed.
func TestThrownOutOfTheGroup(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	cfg := subscriberConfig(c.ListenAddrs(), "g")
	cfg.DrainTimeout = patience
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 1))
	ch := make(chan delivery)
	subscribe(t, kafka.NewSubscriber(cfg, "orders"), collect(ch))
	d := next(t, ch)
	thrownOut := time.Now()
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.UnknownMemberID})
	next(t, d.ctx.Done())
	require.Less(t, time.Since(thrownOut), patience/2)
	again := next(t, ch)
	require.Equal(t, d.Message.ID, again.Message.ID)
	require.True(t, again.Redelivered)
	require.NoError(t, again.Ack())
}

// TestNothingIsHandedOverAfterTheEnd: the client has hundreds of messages
// buffered when the session ends; none of them is delivered.
func TestNothingIsHandedOverAfterTheEnd(t *testing.T) {
	c := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders"))
	mustPublish(t, newPublisher(t, testConfig(c.ListenAddrs())), numbered("orders", "k", 0, 1000))
	for range 10 { // it would be handed over by chance
		ctx, cancel := context.WithCancel(t.Context())
		s := kafka.NewSubscriber(subscriberConfig(c.ListenAddrs(), svctest.Unique("g")), "orders")
		calls := 0
		require.NoError(t, s.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
			if calls++; calls == 100 {
				cancel()
			}
			_ = d.Ack()
		}))
		require.Equal(t, 100, calls)
		require.NoError(t, s.Close())
	}
}
