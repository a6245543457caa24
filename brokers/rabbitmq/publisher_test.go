package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

func message(topic, key string, n int) brokers.Message {
	return brokers.Message{
		Topic: topic, Key: key, ID: fmt.Sprintf("%s-%s-%d", topic, key, n), Source: "/test", Type: "test",
		Payload: []byte(strconv.Itoa(n)),
	}
}

// newQueue declares a quorum queue that is deleted at the end.
func newQueue(t testing.TB, url string, more amqp.Table) string {
	t.Helper()
	name := svctest.Unique("queue")
	withChannel(t, url, func(ch *amqp.Channel) { declareQuorum(t, ch, name, more) })
	t.Cleanup(func() {
		withChannel(t, url, func(ch *amqp.Channel) {
			_, err := ch.QueueDelete(name, false, false, false)
			require.NoError(t, err)
		})
	})
	return name
}

// newExchange declares an exchange that is deleted at the end.
func newExchange(t testing.TB, url, kind string, internal bool) string {
	t.Helper()
	name := svctest.Unique("exchange")
	withChannel(t, url, func(ch *amqp.Channel) {
		require.NoError(t, ch.ExchangeDeclare(name, kind, true, false, internal, false, nil))
	})
	t.Cleanup(func() { deleteExchange(t, url, name) })
	return name
}

func deleteExchange(t testing.TB, url, name string) {
	t.Helper()
	withChannel(t, url, func(ch *amqp.Channel) { require.NoError(t, ch.ExchangeDelete(name, false, false)) })
}

// ready returns the number of messages that wait in the queue.
func ready(t testing.TB, url, queue string) (n int) {
	t.Helper()
	withChannel(t, url, func(ch *amqp.Channel) {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		require.NoError(t, err)
		n = q.Messages
	})
	return n
}

func requireConfirmed(t testing.TB, results []error) {
	t.Helper()
	for i, err := range results {
		require.NoErrorf(t, err, "message %d", i)
	}
}

func TestEveryReturnIsNoticed(t *testing.T) {
	const count = 20_000
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: svctest.RabbitMQ(t)})
	nowhere := svctest.Unique("nowhere")
	msgs := make([]brokers.Message, count)
	for i := range msgs {
		msgs[i] = message(nowhere, "", i)
	}
	for i, err := range p.Publish(t.Context(), msgs) {
		require.Errorf(t, err, "message %d of %d reached nobody", i, count)
		require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err))
	}
}

// TestRefusalKeepsOrder: a queue with a length limit refuses messages in the
// middle of a call, while a consumer makes room for later ones.
func TestRefusalKeepsOrder(t *testing.T) {
	const keys, perKey = 10, 200
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, amqp.Table{"x-max-length": int32(5), "x-overflow": "reject-publish"})
	var msgs []brokers.Message
	for n := range perKey {
		for k := range keys {
			msgs = append(msgs, message(queue, fmt.Sprintf("key-%d", k), n))
		}
	}

	out := make(chan string, 2*len(msgs))
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Qos(3, 0, false))
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	require.NoError(t, err)
	go func() {
		for d := range deliveries {
			out <- d.MessageId
			_ = d.Ack(false) // an error shows as a message that comes twice
		}
	}()

	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url})
	results := p.Publish(t.Context(), msgs)
	confirmed := map[string]bool{}
	refused := 0
	firstBad := map[string]bool{} // keys
	for i, err := range results {
		switch {
		case err == nil:
			require.Falsef(t, firstBad[msgs[i].Key], "%s is confirmed behind a refused one", msgs[i].ID)
			confirmed[msgs[i].ID] = true
		case errors.Is(err, brokers.ErrHeld):
			require.True(t, firstBad[msgs[i].Key])
		default:
			require.Equal(t, brokers.ClassDestination, brokers.ClassOf(err), "%v", err)
			refused, firstBad[msgs[i].Key] = refused+1, true
		}
	}
	require.Positive(t, refused, "the queue refused nothing: this test tests nothing")
	t.Logf("%d of %d keys refused, %d of %d messages out", refused, keys, len(confirmed), len(msgs))
	seen := map[string]bool{}
	for len(seen) < len(confirmed) {
		select {
		case id := <-out:
			seen[id] = true
			require.Truef(t, confirmed[id], "%s is out, but was refused or held back", id)
		case <-time.After(patience):
			require.FailNow(t, "a confirmed message is not out")
		}
	}
	require.Zero(t, ready(t, url, queue), "something is out that was not confirmed")
}

// TestCulpritAmong200: an exchange that cannot be published to, which the broker
// only says by closing the channel for all.
func TestCulpritAmong200(t *testing.T) {
	url := svctest.RabbitMQ(t)
	good := newQueue(t, url, nil)
	for name, culprit := range map[string]func(t *testing.T) (exchange string, spoil func()){
		"unknown": func(*testing.T) (string, func()) { return svctest.Unique("unknown"), func() {} },
		"deleted after it was seen": func(t *testing.T) (string, func()) {
			name := newExchange(t, url, "fanout", false)
			return name, func() { deleteExchange(t, url, name) }
		},
		"not for publishers": func(t *testing.T) (string, func()) {
			return newExchange(t, url, "fanout", true), func() {}
		},
	} {
		for _, at := range []int{0, 100, 199} {
			t.Run(fmt.Sprint(name, " at ", at), func(t *testing.T) {
				bad, spoil := culprit(t)
				findCulprit(t, url, good, bad, at, spoil)
			})
		}
	}
}

func findCulprit(t *testing.T, url, good, bad string, at int, spoil func()) {
	t.Helper()
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url, Route: func(m *brokers.Message) (string, string) {
		if m.Topic == bad {
			return bad, m.Key
		}
		return "", m.Topic
	}})
	warmUp := []brokers.Message{message(good, "", 0), message(bad, "bad", 0)}
	require.NoError(t, p.Publish(t.Context(), warmUp)[0])
	spoil()
	before := ready(t, url, good)
	var msgs []brokers.Message
	for n := range 200 {
		msgs = append(msgs, message(good, strconv.Itoa(n), n))
	}
	msgs[at] = message(bad, "not refused before", at)
	results := p.Publish(t.Context(), msgs)
	require.Error(t, results[at])
	require.Equal(t, brokers.ClassDestination, brokers.ClassOf(results[at]), "%v", results[at])
	results[at] = nil
	requireConfirmed(t, results)
	require.GreaterOrEqual(t, ready(t, url, good)-before, 199)
}

// TestStalledPeer: the broker stops reading. Publish comes back when its context
// ends, and what it gave up does not arrive when the broker goes on.
func TestStalledPeer(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	through := newProxy(t, url)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: through.url})
	requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(queue, "warm-up", 0)}))

	for _, size := range []int{100, 100_000} { // fits into the socket's buffers, and not
		through.stall()
		slips := (64 << 10) / (size + 200) // the proxy reads once more and has a small buffer
		var msgs []brokers.Message
		for n := range 400 {
			m := message(queue, strconv.Itoa(n), n)
			m.Payload = make([]byte, size)
			msgs = append(msgs, m)
		}
		before := ready(t, url, queue)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		start := time.Now()
		results := p.Publish(ctx, msgs)
		cancel()
		require.Less(t, time.Since(start), 2*time.Second)
		for _, err := range results[slips:] {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))
		}
		through.resume()
		requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(queue, "after", 0)}))
		require.LessOrEqual(t, ready(t, url, queue)-before, 1+slips, "given up, and yet it arrived")
	}
}

// TestNoConfirmation: without a context that ends, the confirm timeout does it.
func TestNoConfirmation(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	through := newProxy(t, url)
	p := newPublisher(t, rabbitmq.PublisherConfig{
		URL: through.url, ConfirmTimeout: 300 * time.Millisecond, DialTimeout: 300 * time.Millisecond,
	})
	requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(queue, "warm-up", 0)}))
	through.stall()
	start := time.Now()
	m := message(queue, "key", 0)
	m.Payload = make([]byte, 100_000) // or it slips through
	err := p.Publish(t.Context(), []brokers.Message{m})[0]
	require.Error(t, err)
	require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err), "%v", err)
	require.Less(t, time.Since(start), 5*time.Second)
	through.resume()
	requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(queue, "key", 1)}))
}

// TestCancelledNeighbour: a call that gives up harms no other call.
func TestCancelledNeighbour(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url})
	done := make(chan []error)
	go func() {
		var msgs []brokers.Message
		for n := range 5_000 {
			msgs = append(msgs, message(queue, strconv.Itoa(n%100), n))
		}
		done <- p.Publish(context.Background(), msgs)
	}()
	for i := 0; ; i++ {
		select {
		case results := <-done:
			require.Greater(t, i, 5)
			requireConfirmed(t, results)
			return
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		var msgs []brokers.Message
		for n := range 100 {
			msgs = append(msgs, message(queue, fmt.Sprint("neighbour-", n), i))
		}
		_ = p.Publish(ctx, msgs)
		cancel()
	}
}

func TestHeadersTooLargeForAFrame(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url})
	with := func(size int) brokers.Message {
		m := message(queue, "", size)
		m.Headers = map[string]string{"h": string(make([]byte, size))}
		return m
	}
	const frame = 131_072 // RabbitMQ's default
	rest := 0             // what the message needs beside the header's value
	for ; p.Publish(t.Context(), []brokers.Message{with(frame - rest)})[0] != nil; rest += 8 {
		require.Less(t, rest, 1000)
	}
	results := p.Publish(t.Context(), []brokers.Message{with(frame), with(frame - rest), with(10)})
	require.Equal(t, brokers.ClassRejected, brokers.ClassOf(results[0]))
	requireConfirmed(t, results[1:])
}

func TestRejectedBeforeItIsSent(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url, MaxMessageBytes: 100})
	long := string(make([]byte, 300))
	bad := []brokers.Message{
		{Topic: "", ID: "1"},
		{Topic: long, ID: "2"},
		{Topic: queue, ID: "3", Payload: make([]byte, 101)},
		{Topic: queue, ID: "4", Headers: map[string]string{long: "x"}},
	}
	for i, err := range p.Publish(t.Context(), bad) {
		require.Equal(t, brokers.ClassRejected, brokers.ClassOf(err), "message %d: %v", i, err)
	}
	longFields := brokers.Message{Topic: queue, ID: long, Type: long, ContentType: long, Payload: make([]byte, 100)}
	requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{longFields}))
}

func TestDeclare(t *testing.T) {
	url := svctest.RabbitMQ(t)
	exchange := newExchange(t, url, "direct", false)
	topic := svctest.Unique("declared")
	queues := rabbitmq.QueueNames(topic, 3)
	t.Cleanup(func() {
		withChannel(t, url, func(ch *amqp.Channel) {
			for _, q := range queues {
				_, err := ch.QueueDelete(q, false, false, false)
				require.NoError(t, err)
			}
		})
	})
	p := newPublisher(t, rabbitmq.PublisherConfig{URL: url, Exchange: exchange, Queues: 3, Declare: true})
	var msgs []brokers.Message
	for n := range 300 {
		msgs = append(msgs, message(topic, strconv.Itoa(n%30), n))
	}
	requireConfirmed(t, p.Publish(t.Context(), msgs))
	sum := 0
	for _, q := range queues {
		n := ready(t, url, q)
		require.Positive(t, n, q)
		sum += n
		withChannel(t, url, func(ch *amqp.Channel) { declareQuorum(t, ch, q, nil) }) // fails if other arguments were used
	}
	require.Equal(t, 300, sum)
}

// TestTLS also sees that the client's own configuration can be reached.
func TestTLS(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	through, trusting := newTLSProxy(t, url)
	asked := 0
	cfg := rabbitmq.PublisherConfig{URL: through.url, TLS: trusting, Client: func(c *amqp.Config) {
		asked++
		c.Properties = amqp.Table{"connection_name": "mine"}
		c.Recovery = &amqp.Recovery{} // ignored
	}}
	requireConfirmed(t, newPublisher(t, cfg).Publish(t.Context(), []brokers.Message{message(queue, "", 0)}))
	require.Equal(t, 1, asked)
	cfg.TLS = nil
	err := newPublisher(t, cfg).Publish(t.Context(), []brokers.Message{message(queue, "", 0)})[0]
	require.ErrorContains(t, err, "certificate")
	require.Equal(t, brokers.ClassUnavailable, brokers.ClassOf(err))
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	url := svctest.RabbitMQ(t)
	queue := newQueue(t, url, nil)
	others := goleak.IgnoreCurrent()
	p := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: url})
	requireConfirmed(t, p.Publish(t.Context(), []brokers.Message{message(queue, "", 0)}))
	require.NoError(t, p.Close())
	s := rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: url}, queue)
	got := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- s.Subscribe(context.Background(), func(_ context.Context, d *brokers.Delivery) {
			_ = d.Ack()
			close(got)
		})
	}()
	<-got
	require.NoError(t, s.Close())
	require.NoError(t, <-done)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.NoError(c, goleak.Find(others)) }, patience, 10*time.Millisecond)
}
