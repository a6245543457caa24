package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// checkHeld: one event fails for good while 2,000 of its key are in flight.
// What came before it is out, nothing after it is, and other keys are unharmed.
func checkHeld(t *testing.T, h Harness) {
	for _, at := range []int{0, 700, 1_999} {
		t.Run(fmt.Sprintf("at_%d", at), func(t *testing.T) {
			topic := h.topic(t, 2, MaxBytes)
			pub := h.publisher(t)
			mustPublishAll(t, h, pub, messages(topic, []string{"warm-up"}, 0, 1))

			others := keyNames(20)
			var msgs []brokers.Message
			for n := range 2_000 {
				msgs = append(msgs, message(topic, "bad", n), message(topic, others[n%len(others)], n))
			}
			h.poison(&msgs[2*at])
			h.checkHeldResults(t, msgs, 2*at, publish(t, h, pub, msgs))

			// The next events of the same keys arrive behind everything that is out.
			// A publisher that still had some of it would send it by the time it has
			// been closed: so once more with another one.
			next := messages(topic, append(others, "bad"), 2_000, 2_001)
			mustPublishAll(t, h, pub, next)
			require.NoError(t, pub.Close())
			last := messages(topic, append(others, "bad"), 2_001, 2_002)
			mustPublishAll(t, h, h.publisher(t), last)

			rec := newRecord()
			read(t, h, topic, rec, rec.ack)
			rec.await(t, h, 0, last)
			rec.checkOrder(t)
			checkOnlyOut(t, rec, msgs, 2*at)
		})
	}
}

// checkHeldResults checks the results of a call in which message bad fails.
func (h Harness) checkHeldResults(t *testing.T, msgs []brokers.Message, bad int, results []error) {
	t.Helper()
	require.Error(t, results[bad], "the event that must fail is confirmed")
	require.NotErrorIs(t, results[bad], brokers.ErrHeld, "the event that must fail is held back by nothing")
	if h.Poison == nil {
		require.Equal(t, brokers.ClassRejected, brokers.ClassOf(results[bad]), "class of %v", results[bad])
	}
	for i, err := range results {
		switch {
		case i == bad:
		case i > bad && msgs[i].Key == msgs[bad].Key:
			require.Errorf(t, err, "%s is confirmed behind the failed event of its key", msgs[i].ID)
			if !errors.Is(err, brokers.ErrHeld) {
				require.Equalf(t, brokers.ClassOf(results[bad]), brokers.ClassOf(err), "%s: %v", msgs[i].ID, err)
			}
		default:
			require.NoErrorf(t, err, "%s has nothing to do with the failed event", msgs[i].ID)
		}
	}
}

// checkOnlyOut checks that nothing is out of msgs[bad] and what is behind it.
func checkOnlyOut(t *testing.T, rec *record, msgs []brokers.Message, bad int) {
	t.Helper()
	out := map[string]bool{}
	for _, d := range rec.since(0) {
		out[d.Message.ID] = true
	}
	for i, m := range msgs {
		if m.Key == msgs[bad].Key && i >= bad {
			require.Falsef(t, out[m.ID], "%s is out, behind the failed event %s", m.ID, msgs[bad].ID)
		} else {
			require.Truef(t, out[m.ID], "%s is confirmed but not out", m.ID)
		}
	}
}

// checkNeighbours: events that are too large fail alone, also among events that
// are large themselves and together exceed every limit.
func checkNeighbours(t *testing.T, h Harness) {
	topic := h.topic(t, 1, MaxBytes)
	pub := h.publisher(t)
	var msgs, good []brokers.Message
	for n := range 500 {
		m := message(topic, fmt.Sprintf("key-%d", n), n)
		switch {
		case n%100 == 50:
			m.Payload = noise(MaxBytes * 3 / 2)
		case n%10 == 0:
			m.Payload = noise(MaxBytes * 3 / 4)
		}
		if n%3 == 0 {
			m.Key = "" // without order
		}
		msgs = append(msgs, m)
	}
	for i, err := range publish(t, h, pub, msgs) {
		if len(msgs[i].Payload) > MaxBytes {
			require.Equalf(t, brokers.ClassRejected, brokers.ClassOf(err), "%s is too large: %v", msgs[i].ID, err)
			continue
		}
		require.NoErrorf(t, err, "%s is not too large", msgs[i].ID)
		good = append(good, msgs[i])
	}
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, good)
}

// checkUnknownTopic: messages to a topic that does not exist fail as such,
// promptly; others, in the same call and beside it, do not notice. When the
// topic is created the publisher finds it.
func checkUnknownTopic(t *testing.T, h Harness) {
	topic := h.topic(t, 2, 0)
	name := h.UnknownTopic(t)
	unknown := Topic{Name: name, Group: name + "-group", Units: 1}
	pub := h.publisher(t)
	keys := keyNames(10)
	mustPublishAll(t, h, pub, messages(topic, keys, 0, 1))

	ctx, cancel := context.WithTimeout(t.Context(), h.Timeout)
	defer cancel()
	all := messages(topic, keys, 0, 1)
	for call := range 5 {
		good, bad := messages(topic, keys, 1+call*20, 21+call*20), messages(unknown, keys, call*20, 20+call*20)
		var mixed []brokers.Message
		for i := range good {
			mixed = append(mixed, bad[i], good[i])
		}
		beside := messages(topic, []string{"beside"}, call*20, 20+call*20)
		var running sync.WaitGroup
		var failure error
		running.Go(func() { failure = publishAll(ctx, pub, beside) })
		start := time.Now()
		results := publish(t, h, pub, mixed)
		running.Wait()
		require.Less(t, time.Since(start), prompt, "an unknown topic must be answered promptly")
		require.NoError(t, failure, "a call beside the one with the unknown topic")
		for i, err := range results {
			if mixed[i].Topic == topic.Name {
				require.NoErrorf(t, err, "%s goes to a good topic", mixed[i].ID)
				continue
			}
			requireDestination(t, err, name)
		}
		all = append(all, good...)
		all = append(all, beside...)
	}
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, all)
	rec.checkOrder(t)

	h.CreateTopic(t, unknown)
	eventually(t, h.Timeout, "the publisher to find a topic that was created later", func() bool {
		return publish(t, h, pub, messages(unknown, []string{"found"}, 0, 1))[0] == nil
	})
}

func requireDestination(t *testing.T, err error, topic string) {
	t.Helper()
	require.Error(t, err, "a message that reaches nobody is confirmed")
	if errors.Is(err, brokers.ErrHeld) {
		return
	}
	require.Equalf(t, brokers.ClassDestination, brokers.ClassOf(err), "class of %v", err)
	var e *brokers.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, topic, e.Topic, "Error.Topic")
}

// checkUnroutable: of 20,000 messages that the broker takes and drops, none
// counts as published, while those between them arrive.
func checkUnroutable(t *testing.T, h Harness) {
	topic := h.topic(t, 1, 0)
	nowhere := Topic{Name: h.Unroutable(t)}
	pub := h.publisher(t)
	var good []brokers.Message
	ctx, cancel := context.WithTimeout(t.Context(), h.Timeout)
	defer cancel()
	for call := range 10 {
		var msgs []brokers.Message
		for n := range 2_000 {
			m := message(nowhere, "", call*2_000+n)
			if n%2 == 0 {
				m.Key = fmt.Sprintf("key-%d", n)
			}
			msgs = append(msgs, m)
			if n%10 == 0 {
				good = append(good, message(topic, "good", call*200+n/10))
				msgs = append(msgs, good[len(good)-1])
			}
		}
		results := pub.Publish(ctx, msgs)
		require.NoError(t, checkResults(msgs, results))
		for i, err := range results {
			if msgs[i].Topic == topic.Name {
				require.NoErrorf(t, err, "%s goes to a good topic", msgs[i].ID)
			} else {
				requireDestination(t, err, nowhere.Name)
			}
		}
	}
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, good)
	rec.checkOrder(t)
}
