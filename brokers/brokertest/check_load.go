package brokertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// load publishes all the time, some thousand messages a second at most, the
// keys taking turns, each message again until it is confirmed.
type load struct {
	topic  Topic
	keys   []string
	calls  atomic.Int64 // of Publish
	stop   chan struct{}
	done   chan struct{}
	rounds int   // published of each key, after done
	err    error // after done
}

func startLoad(t *testing.T, h Harness, topic Topic) *load {
	t.Helper()
	l := &load{topic: topic, keys: keyNames(40), stop: make(chan struct{}), done: make(chan struct{})}
	pub := Faulty(h.publisher(t), func(call int, _ brokers.Message) Fault {
		l.calls.Store(int64(call))
		return Fault{}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*h.Timeout)
	go func() {
		defer close(l.done)
		l.run(ctx, pub)
	}()
	t.Cleanup(func() {
		cancel()
		<-l.done
	})
	return l
}

func (l *load) run(ctx context.Context, pub brokers.Publisher) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		if l.err = publishAll(ctx, pub, messages(l.topic, l.keys, l.rounds, l.rounds+1)); l.err != nil {
			return
		}
		l.rounds++
	}
}

// awaitCalls waits until n more calls of Publish have begun, but not for long:
// a call may block.
func (l *load) awaitCalls(n int64, atMost time.Duration) {
	deadline := time.Now().Add(atMost)
	for want := l.calls.Load() + n; l.calls.Load() < want && time.Now().Before(deadline); {
		<-time.After(pause)
	}
}

// finish ends the load and returns all that it published.
func (l *load) finish(t *testing.T, h Harness) []brokers.Message {
	t.Helper()
	close(l.stop)
	await(t, l.done, h.Timeout, "the publisher to confirm what is left")
	require.NoError(t, l.err)
	return messages(l.topic, l.keys, 0, l.rounds)
}

// lateSettler acknowledges deliveries in another goroutine, a little later and
// in any order. It is a little slower than load, so that handle has to wait and
// a member that leaves has something in its hands.
func lateSettler(t *testing.T, rec *record) brokers.Handle {
	const room, every = 16, 10 * time.Millisecond
	taken := make(chan *brokers.Delivery, room)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var batch []*brokers.Delivery
			for len(taken) > 0 {
				batch = append(batch, <-taken)
			}
			for _, d := range shuffled(batch) {
				rec.ack(ctx, d)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return func(ctx context.Context, d *brokers.Delivery) {
		select {
		case taken <- d:
		case <-ctx.Done():
		}
	}
}

// checkHandover: members join and leave while messages keep coming. Nothing is
// lost, and each key's first deliveries are in order, whoever gets them.
func checkHandover(t *testing.T, h Harness) {
	const some = 500
	topic := h.topic(t, 4, 0)
	rec := newRecord()
	settle := lateSettler(t, rec)
	l := startLoad(t, h, topic)
	member := read(t, h, topic, rec, settle)
	rec.awaitCount(t, h, 0, some)
	for range 2 {
		next := read(t, h, topic, rec, settle)
		rec.awaitCount(t, h, rec.len(), some) // with two members
		member.stop()
		rec.awaitCount(t, h, rec.len(), some) // with one
		member = next
	}
	all := l.finish(t, h)
	rec.await(t, h, 0, all)
	rec.checkOrder(t)
}

// gate is a handle that blocks on messages of one key until it is opened.
type gate struct {
	rec  *record
	key  string
	open chan struct{}
}

func (g *gate) handle(ctx context.Context, d *brokers.Delivery) {
	if d.Message.Key == g.key {
		select {
		case <-g.open:
		case <-ctx.Done():
			return
		}
	}
	g.rec.ack(ctx, d)
}

// checkBackpressure: while handle blocks, nothing more of its unit is handed
// over, other units go on, and afterwards everything comes in order.
func checkBackpressure(t *testing.T, h Harness) {
	topic := h.topic(t, 4, 0)
	keys := keyNames(20)
	rec := newRecord()
	g := &gate{rec: rec, key: keys[0], open: make(chan struct{})}
	read(t, h, topic, rec, g.handle)

	// The unit of a key shows only when it is used.
	others := messages(topic, keys[1:], 0, 100)
	pub := h.publisher(t)
	mustPublishAll(t, h, pub, others)
	rec.await(t, h, 0, others)
	blocked := messages(topic, keys[:1], 0, 1_000)
	mustPublishAll(t, h, pub, blocked)
	rec.awaitFunc(t, h, 0, func(d *brokers.Delivery) bool { return d.Message.Key == g.key },
		func() string { return "nothing of the blocked key has arrived" })
	home := map[string]unit{}
	for _, d := range rec.since(0) {
		home[d.Message.Key] = unitOf(d)
	}

	more := messages(topic, keys[1:], 100, 200)
	mustPublishAll(t, h, pub, more)
	var free []brokers.Message
	for _, m := range more {
		if home[m.Key] != home[g.key] {
			free = append(free, m)
		}
	}
	rec.await(t, h, 0, free)
	close(g.open)
	rec.await(t, h, 0, append(append(blocked, others...), more...))
	rec.checkOrder(t)
	rec.checkFaults(t)
}

// checkAhead: while handle blocks, the broker keeps most of a backlog to
// itself.
func checkAhead(t *testing.T, h Harness) {
	const backlog, most = 5_000, 2_500
	topic := h.topic(t, 1, 0)
	rec := newRecord()
	g := &gate{rec: rec, key: "key", open: make(chan struct{})}
	read(t, h, topic, rec, g.handle)
	msgs := messages(topic, []string{"key"}, 0, backlog)
	mustPublishAll(t, h, h.publisher(t), msgs)
	rec.awaitCount(t, h, 0, 1)
	// There is nothing to wait for when all is well: give too much time to come.
	for until := time.Now().Add(time.Second); time.Now().Before(until); <-time.After(pause) {
		ahead := h.Ahead(t, topic)
		require.LessOrEqualf(t, ahead, most, "%d of %d messages were taken while handle was blocked on the first", ahead, backlog)
	}
	close(g.open)
	rec.await(t, h, 0, msgs)
	rec.checkOrder(t)
}
