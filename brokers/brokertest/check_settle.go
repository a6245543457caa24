package brokertest

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// window is how many deliveries of a unit a subscriber must hand over without
// any being settled.
const window = 50

// shuffled returns the deliveries in another order.
func shuffled(ds []*brokers.Delivery) []*brokers.Delivery {
	out := append([]*brokers.Delivery(nil), ds...)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// holdWindow publishes a window of messages of one key and returns a reader
// that has them all, none settled, and their deliveries by number.
func holdWindow(t *testing.T, h Harness, settle brokers.Handle) (Topic, *reader, []*brokers.Delivery) {
	t.Helper()
	topic := h.topic(t, 1, 0)
	mustPublishAll(t, h, h.publisher(t), messages(topic, []string{"key"}, 0, window))
	r := read(t, h, topic, newRecord(), settle)
	held := r.awaitWindow(t)
	return topic, r, held
}

// awaitWindow returns the latest delivery of each message of the window.
func (r *reader) awaitWindow(t *testing.T) []*brokers.Delivery {
	t.Helper()
	held := make([]*brokers.Delivery, window)
	missing := window
	r.awaitFunc(t, r.h, 0, func(d *brokers.Delivery) bool {
		if n := numberOf(d.Message); n < window {
			if held[n] == nil {
				missing--
			}
			held[n] = d
		}
		return missing == 0
	}, func() string { return "a subscriber must hand over 50 deliveries of a unit without any being settled" })
	return held
}

// checkUnsettled: deliveries are settled in any order, two are not, and the
// subscriber goes away. The next one gets these two; what is settled for the
// one that went is stale.
func checkUnsettled(t *testing.T, h Harness) {
	var last atomic.Value // the context of a delivery
	topic, r, held := holdWindow(t, h, func(ctx context.Context, _ *brokers.Delivery) { last.Store(ctx) })
	for _, d := range shuffled(held) {
		if n := numberOf(d.Message); n != 10 && n != 30 {
			require.NoError(t, d.Ack(), "ack of event %d", n)
		}
	}
	r.stop()
	require.Error(t, last.Load().(context.Context).Err(), "the deliveries' contexts must have ended when Subscribe returns")
	require.ErrorIs(t, held[10].Ack(), brokers.ErrStale, "ack after Subscribe has returned")
	held[30].Release() // does nothing, but must not hurt

	more := messages(topic, []string{"key"}, window, window+10)
	mustPublishAll(t, h, h.publisher(t), more)
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, append(more, messages(topic, []string{"key"}, 10, 11)[0], messages(topic, []string{"key"}, 30, 31)[0]))
	rec.checkOrder(t)
}

// checkDrain: a subscriber that is told to go waits for the deliveries that are
// being worked on, and their acks count. Some may come again all the same: a
// quorum queue of RabbitMQ forgets what exceeds 32 acks in a burst when the
// channel is closed. All of them would mean that leaving commits nothing.
func checkDrain(t *testing.T, h Harness) {
	var last atomic.Value // the context of a delivery
	topic, r, held := holdWindow(t, h, func(ctx context.Context, _ *brokers.Delivery) { last.Store(ctx) })
	r.cancel()
	select {
	case <-r.done:
		require.Fail(t, "Subscribe has returned before its deliveries were settled")
	case <-time.After(DrainTimeout / 4): // it must still be waiting
	}
	require.NoError(t, last.Load().(context.Context).Err(), "the deliveries' contexts ended before the drain timeout")
	for _, d := range shuffled(held) {
		require.NoError(t, d.Ack(), "ack of event %d while the subscriber waits for it", numberOf(d.Message))
	}
	r.stop()

	marker := messages(topic, []string{"key"}, window, window+1)
	mustPublishAll(t, h, h.publisher(t), marker)
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, marker)
	again := rec.len() - 1
	require.Less(t, again, window, "all that was acknowledged while the subscriber was leaving has come again")
	if again > 0 {
		t.Logf("%d of %d deliveries acknowledged while the subscriber was leaving have come again", again, window)
	}
}

// checkRelease: a released delivery comes again before anything behind it.
func checkRelease(t *testing.T, h Harness) {
	t.Run("while_handling", func(t *testing.T) { checkReleaseInHandle(t, h) })
	t.Run("with_all_behind_it", func(t *testing.T) { checkReleaseAll(t, h) })
	t.Run("alone", func(t *testing.T) { checkReleaseAlone(t, h) })
}

// checkReleaseInHandle releases one message three times within handle.
func checkReleaseInHandle(t *testing.T, h Harness) {
	const bad, times = 5, 3
	topic := h.topic(t, 1, 0)
	rec := newRecord()
	released := 0 // handle is not called concurrently for one unit
	read(t, h, topic, rec, func(ctx context.Context, d *brokers.Delivery) {
		if numberOf(d.Message) == bad && released < times {
			released++
			d.Release()
			return
		}
		rec.ack(ctx, d)
	})
	msgs := messages(topic, []string{"key"}, 0, 20)
	mustPublishAll(t, h, h.publisher(t), msgs)
	rec.await(t, h, 0, msgs)
	seen := 0
	for _, d := range rec.since(0) {
		n := numberOf(d.Message)
		if n == bad {
			seen++
		}
		require.Falsef(t, n > bad && seen <= times, "event %d was delivered before event %d, which was released, came again", n, bad)
	}
}

// checkReleaseAll settles the first five of a window and releases the rest.
func checkReleaseAll(t *testing.T, h Harness) {
	var second atomic.Bool
	topic, r, held := holdWindow(t, h, func(_ context.Context, d *brokers.Delivery) {
		if second.Load() {
			_ = d.Ack() // stale is as good: it comes again
		}
	})
	for _, d := range held[:5] {
		require.NoError(t, d.Ack())
	}
	from := r.len()
	second.Store(true)
	for _, d := range shuffled(held[5:]) {
		d.Release()
	}
	r.await(t, h, from, messages(topic, []string{"key"}, 5, window))
	requireRising(t, r.since(from))
}

// checkReleaseAlone releases one of a window and settles the rest: that one and
// all whose ack was refused come again, and releasing a stale delivery does
// nothing.
func checkReleaseAlone(t *testing.T, h Harness) {
	topic, r, held := holdWindow(t, h, nil)
	from := r.len()
	held[5].Release()
	want := []brokers.Message{held[5].Message}
	for _, d := range shuffled(append(append([]*brokers.Delivery(nil), held[:5]...), held[6:]...)) {
		if err := d.Ack(); err != nil {
			require.ErrorIs(t, err, brokers.ErrStale)
			want = append(want, d.Message)
		}
	}
	r.await(t, h, from, want)
	requireRising(t, r.since(from))
	for _, d := range r.since(from) {
		if err := d.Ack(); err != nil {
			require.ErrorIs(t, err, brokers.ErrStale)
		}
	}
	held[5].Release()
	more := messages(topic, []string{"key"}, window, window+10)
	mustPublishAll(t, h, h.publisher(t), more)
	r.await(t, h, from, more)
}

// requireRising checks the order of first deliveries, for one key.
func requireRising(t *testing.T, ds []*brokers.Delivery) {
	t.Helper()
	part := newRecord()
	part.got = ds
	part.checkOrder(t)
}
