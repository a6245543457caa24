package e2e

import (
	"context"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
)

// Kafka's disk is full: every append fails, and Kafka, which has lost its only log
// folder, ends. (It may not write files beyond the size that they have: the error
// comes from the same call as that of a full disk.) When there is room again and it
// was started again, nothing is missing.
func TestKafkaDiskFull(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("prlimit, of util-linux, is not installed")
	}
	server := svctest.OwnKafka(t)
	topic := createTopic(t, server.Brokers(), 3)
	to := kafka.NewPublisher(kafka.Config{Brokers: server.Brokers(), PublishTimeout: 2 * time.Second})
	diskFull{
		to: to, topic: topic,
		from: func() brokers.Subscriber {
			return kafka.NewSubscriber(kafka.Config{Brokers: server.Brokers(), Group: topic}, topic)
		},
		fill: func() {
			out, err := exec.Command("prlimit", "--pid", strconv.Itoa(server.Pid()), "--fsize=1:").CombinedOutput()
			require.NoError(t, err, string(out))
		},
		free: func() {
			require.Eventually(t, func() bool { return syscall.Kill(server.Pid(), 0) != nil }, time.Minute, 50*time.Millisecond, "Kafka has ended")
			require.NoError(t, server.Kill())
			require.NoError(t, server.Start(t.Context()))
		},
	}.run(t)
}

// RabbitMQ's disk alarm: it blocks connections that publish until there is room.
func TestRabbitMQDiskAlarm(t *testing.T) {
	server := svctest.OwnRabbitMQ(t)
	queue := svctest.Unique("orders")
	limit := func(bytes string) {
		_, err := server.Ctl(t.Context(), "set_disk_free_limit", bytes)
		require.NoError(t, err)
	}
	diskFull{
		to:    rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: server.URL(), Declare: true}),
		topic: queue,
		from: func() brokers.Subscriber {
			return rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: server.URL(), Declare: true}, queue)
		},
		fill: func() { limit("1000000000000000") },
		free: func() { limit("50MB") },
	}.run(t)
}

type diskFull struct {
	to         brokers.Publisher
	topic      string
	from       func() brokers.Subscriber
	fill, free func()
}

// run has writers write while the broker's disk is full: the relay takes it for a
// broker that is away, parks nothing, and goes on by itself.
func (d diskFull) run(t *testing.T) {
	databaseURL, shop := producerDatabase(t)
	pool, err := pgxpool.New(t.Context(), as(t, databaseURL, "outbox_relay"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	t.Cleanup(func() { require.NoError(t, d.to.Close()) })
	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{{
		Name: "broker", To: d.to, Filter: relay.Filter{Topics: []string{"orders"}}, Topic: func(string) string { return d.topic },
	}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	state := func() relay.PipelineStats { return r.Stats().Pipelines[0] }
	published := func() uint64 { return state().Published }

	stopWriting := keepWriting(t, as(t, databaseURL, "outbox_writer"))
	require.Eventually(t, func() bool { return published() > 500 }, time.Minute, 10*time.Millisecond, "at work")
	d.fill()
	require.Eventually(t, func() bool { return state().Circuit == "open" }, time.Minute, time.Millisecond, "the circuit opens")
	reason := state().LastError
	before := published()
	orders := count(t, shop, "orders")
	require.Eventually(t, func() bool { return count(t, shop, "orders") > orders+500 }, time.Minute, 10*time.Millisecond, "writers do not wait for the broker")
	stopped := published()
	require.NotEqual(t, "closed", state().Circuit)
	stopWriting() // what has piled up is enough to catch up with
	d.free()
	require.Eventually(t, func() bool { return published() > stopped+500 }, time.Minute, 10*time.Millisecond, "goes on")

	written := writes(t, shop)
	got := collect(t, d.from())
	all := assert.Eventually(t, func() bool { return len(firsts(got)) >= len(written) }, 2*time.Minute, 50*time.Millisecond, "every order has come out")
	if !all {
		t.Logf("%d of %d orders; the relay: %+v", len(firsts(got)), len(written), state())
	}
	if report := history.Report(history.Check(written, firsts(got))); report != "" {
		t.Error(report)
	}
	require.Zero(t, count(t, shop, "outbox.parked"), "nothing is parked")
	t.Logf("%d orders, %d deliveries, %d events confirmed while the disk was full; %s", len(written), got.count(), stopped-before, reason)
}

// firsts leaves repeats out.
func firsts(c *collector) (list []history.Effect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[history.Write]bool{}
	for _, e := range c.effects {
		if w := (history.Write{Key: e.Key, N: e.N}); !seen[w] {
			seen[w] = true
			list = append(list, e)
		}
	}
	return list
}
