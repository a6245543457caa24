package brokertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// outage stops the server, runs f, and starts the server again whatever f did.
func (h Harness) outage(t *testing.T, f func()) {
	t.Helper()
	h.Stop(t)
	defer h.Start(t)
	f()
}

// checkRestart: the server restarts while a publisher and a subscriber are
// busy; both go on by themselves, nothing is lost, order is kept.
func checkRestart(t *testing.T, h Harness) {
	const some = 500
	topic := h.topic(t, 2, 0)
	rec := newRecord()
	l := startLoad(t, h, topic)
	read(t, h, topic, rec, lateSettler(t, rec))
	rec.awaitCount(t, h, 0, some)
	h.outage(t, func() { l.awaitCalls(2, 2*time.Second) })

	after := rec.len()
	seen := map[string]bool{}
	for _, d := range rec.since(0) {
		seen[d.Message.ID] = true
	}
	fresh := 0
	rec.awaitFunc(t, h, after, func(d *brokers.Delivery) bool {
		if !seen[d.Message.ID] {
			fresh++
		}
		return fresh >= some
	}, func() string { return "publisher or subscriber does not go on after the server's restart" })
	all := l.finish(t, h)
	rec.await(t, h, 0, all)
	rec.checkOrder(t)
}

// checkServerAway: without a server Publish says so, in time, and works again
// when the server is back.
func checkServerAway(t *testing.T, h Harness) {
	topic := h.topic(t, 1, 0)
	pub := h.publisher(t)
	keys := keyNames(5)
	mustPublishAll(t, h, pub, messages(topic, keys, 0, 1))
	msgs := messages(topic, keys, 1, 21)
	h.outage(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var results []error
		within(t, 2*time.Second+prompt, "Publish to return without a server", func() { results = pub.Publish(ctx, msgs) })
		require.NoError(t, checkResults(msgs, results))
		for i, err := range results {
			require.Errorf(t, err, "%s is confirmed without a server", msgs[i].ID)
			require.Equalf(t, brokers.ClassUnavailable, brokers.ClassOf(err), "%s: %v", msgs[i].ID, err)
		}
	})
	mustPublishAll(t, h, pub, msgs)
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, append(msgs, messages(topic, keys, 0, 1)...))
	rec.checkOrder(t)
}

// checkUnsettledRestart: two of a window are not settled when the server
// restarts and the subscriber goes. They come again.
func checkUnsettledRestart(t *testing.T, h Harness) {
	topic, r, held := holdWindow(t, h, nil)
	for _, d := range shuffled(held) {
		if n := numberOf(d.Message); n != 10 && n != 30 {
			require.NoError(t, d.Ack(), "ack of event %d", n)
		}
	}
	h.outage(t, func() {})
	r.stop()
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, []brokers.Message{held[10].Message, held[30].Message})
	rec.checkOrder(t)
}

// checkStaleAck: deliveries from before a restart are acknowledged after it,
// when the broker numbers deliveries from the beginning again. Such an ack is
// refused or means its own message: no other message may be taken for done.
func checkStaleAck(t *testing.T, h Harness) {
	topic := h.topic(t, 1, 0)
	key := []string{"key"}
	pub := h.publisher(t)
	all := messages(topic, key, 0, 2*window)
	mustPublishAll(t, h, pub, all)
	r := read(t, h, topic, newRecord(), nil)
	r.awaitCount(t, h, 0, window)
	old := r.since(0)
	done := map[string]bool{}
	ack := func(d *brokers.Delivery) {
		err := d.Ack()
		done[d.Message.ID] = done[d.Message.ID] || err == nil
		if err != nil && !errors.Is(err, brokers.ErrStale) {
			require.NoError(t, err, "an ack that is too late returns ErrStale")
		}
	}
	for _, d := range old[:10] {
		ack(d) // so that a new session counts differently
	}
	h.outage(t, func() {})
	marker := message(topic, key[0], len(all))
	all = append(all, marker)
	mustPublishAll(t, h, pub, all[len(all)-1:])

	// Either the session has survived and the marker comes next, or it is a new
	// one and begins with what was not acknowledged.
	again := 0
	seen := map[string]bool{}
	r.awaitFunc(t, h, 0, func(d *brokers.Delivery) bool {
		if seen[d.Message.ID] {
			again++
		}
		seen[d.Message.ID] = true
		return d.Message.ID == marker.ID || again >= window-10
	}, func() string { return "nothing is delivered after the server's restart" })
	for _, d := range old[10:15] {
		ack(d)
	}
	r.stop()

	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	var want []brokers.Message
	for _, m := range all {
		if !done[m.ID] {
			want = append(want, m)
		}
	}
	rec.await(t, h, 0, want)
	rec.checkOrder(t)
}
