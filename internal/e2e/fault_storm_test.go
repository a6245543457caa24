//go:build faults

package e2e

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// storm publishes each message two to ten times: in a row, again with its whole
// page as a relay does after a crash, and all of it to a second topic as well, so
// that two members have the same message at the same time.
type storm struct {
	brokers.Publisher
	second string // topic
	copies atomic.Int64
}

func (s *storm) Publish(ctx context.Context, msgs []brokers.Message) []error {
	var all []brokers.Message
	var of []int // index of the original
	add := func(i int, topic string) {
		m := msgs[i]
		m.Topic = topic
		all, of = append(all, m), append(of, i)
	}
	times := make([]int, len(msgs)) // left to be sent
	for i := range msgs {
		times[i] = 1 + rand.IntN(5) //nolint:gosec // no secret
	}
	for slices.Max(times) > 0 { // the page once more, and what has copies left a few times in a row
		for i := range msgs {
			for row := min(times[i], 1+rand.IntN(2)); row > 0; row-- {
				add(i, msgs[i].Topic)
				add(i, s.second)
				times[i]--
			}
		}
	}
	results := make([]error, len(msgs))
	for j, err := range s.Publisher.Publish(ctx, all) {
		if err != nil {
			results[of[j]] = err
		} else {
			s.copies.Add(1)
		}
	}
	return results
}

// Each message comes two to ten times, over two topics, to two members of one
// consumer that work at the same time. Order per key holds across the topics,
// because a claim of what another member is handling waits. One member handles
// batches.
func TestDuplicateStorm(t *testing.T) {
	overBoth(t, func(t *testing.T, b faultBroker) {
		var second faultBroker
		if b.kafka != nil {
			second = kafkaTopic(t, b.kafka)
		} else {
			second = rabbitTopic(t, b.rabbitMQ)
		}
		to := &storm{Publisher: b.publisher(), second: second.topic}
		consumerURL, consumer := consumerDatabase(t)
		w := newFaultWorldAt(t, b, consumerURL, consumer, to)
		stop := w.write(load{perSecond: 250})
		first := w.join(memberSpec{Name: "first", Session: 2 * time.Second, From: b.from})
		other := w.join(memberSpec{Name: "second", Session: 2 * time.Second, From: second.from, Batch: true})
		w.eventually(func() bool { // which of them is the first with a message is chance
			a, o := first.statsNow(), other.statsNow()
			return w.effects() > 600 && a.Handled+a.Duplicates > 300 && o.Handled+o.Duplicates > 300
		}, "both members work")
		stop()
		written := int64(count(t, w.shop, "orders"))
		w.eventually(func() bool { return w.effects() == int(written) }, "all have taken effect")
		w.eventually(func() bool {
			a, o := first.statsNow(), other.statsNow()
			return a.Handled+o.Handled+a.Duplicates+o.Duplicates >= to.copies.Load()
		}, "every copy is looked at")
		w.judge(true)
		a, o := first.stats(), other.stats()
		require.Equal(t, written, a.Handled+o.Handled)
		require.GreaterOrEqual(t, to.copies.Load(), 2*written)
		t.Logf("%d orders, %d copies; handled %d + %d, duplicates %d + %d", written, to.copies.Load(), a.Handled, o.Handled, a.Duplicates, o.Duplicates)
	})
}
