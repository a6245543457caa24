package brokertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

const (
	// prompt is what "returns promptly" means on a busy machine.
	prompt = 10 * time.Second
	// pause lies between attempts to publish again.
	pause = 50 * time.Millisecond
)

// uniqueName returns a name that no other test uses, so that one server serves
// all of them.
func uniqueName(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:12])
}

// topic creates a topic for one subtest.
func (h Harness) topic(t *testing.T, units, maxBytes int) Topic {
	t.Helper()
	name := uniqueName("brokertest")
	topic := Topic{Name: name, Group: name + "-group", Units: units, MaxBytes: maxBytes}
	h.CreateTopic(t, topic)
	return topic
}

// publisher returns a publisher that is closed with the subtest.
func (h Harness) publisher(t *testing.T) brokers.Publisher {
	t.Helper()
	pub := h.NewPublisher(t)
	t.Cleanup(func() { require.NoError(t, pub.Close()) })
	return pub
}

// message returns the n-th message of a key. Its id says so too, which is how
// a delivery is recognised.
func message(topic Topic, key string, n int) brokers.Message {
	return brokers.Message{
		Topic:   topic.Name,
		Key:     key,
		ID:      fmt.Sprintf("%s/%06d", key, n),
		Source:  "/brokertest",
		Type:    "brokertest.counted",
		Payload: fmt.Appendf(nil, "event %d of %s", n, key),
	}
}

// numberOf returns the n of message.
func numberOf(m brokers.Message) int {
	n, err := strconv.Atoi(m.ID[strings.LastIndexByte(m.ID, '/')+1:])
	if err != nil {
		return -1
	}
	return n
}

// messages returns numbers [from, to) of every key, the keys taking turns.
func messages(topic Topic, keys []string, from, to int) []brokers.Message {
	msgs := make([]brokers.Message, 0, len(keys)*(to-from))
	for n := from; n < to; n++ {
		for _, key := range keys {
			msgs = append(msgs, message(topic, key, n))
		}
	}
	return msgs
}

func keyNames(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
	}
	return keys
}

// noise returns bytes that no compression makes smaller.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// poison makes m fail for good.
func (h Harness) poison(m *brokers.Message) {
	if h.Poison != nil {
		h.Poison(m)
		return
	}
	m.Payload = noise(MaxBytes * 3 / 2)
}

// publish calls Publish once and checks what is true of every call: it returns,
// with one result a message, and nothing is confirmed behind a failure of its
// own key.
func publish(t *testing.T, h Harness, pub brokers.Publisher, msgs []brokers.Message) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.Timeout)
	defer cancel()
	results := pub.Publish(ctx, msgs)
	require.NoError(t, checkResults(msgs, results))
	return results
}

func checkResults(msgs []brokers.Message, results []error) error {
	if len(results) != len(msgs) {
		return fmt.Errorf("%d results for %d messages", len(results), len(msgs))
	}
	failed := map[orderKey]int{}
	for i, m := range msgs {
		k := orderKey{m.Topic, m.Key}
		before, behind := failed[k]
		switch {
		case results[i] != nil && !behind && k.ordered():
			failed[k] = i
		case results[i] == nil && behind:
			return fmt.Errorf("message %d (%s) is confirmed although message %d of its key failed: %w",
				i, m.ID, before, results[before])
		}
	}
	return nil
}

// publishAll publishes msgs as the relay does: what was held or met an
// unavailable broker is sent again, in order, until all is confirmed.
func publishAll(ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) error {
	for {
		results := pub.Publish(ctx, msgs)
		if err := checkResults(msgs, results); err != nil {
			return err
		}
		var again []brokers.Message
		var last error
		for i, err := range results {
			switch {
			case err == nil:
				continue
			case !errors.Is(err, brokers.ErrHeld):
				last = err
				if brokers.ClassOf(err) != brokers.ClassUnavailable || errors.Is(err, brokers.ErrClosed) {
					return fmt.Errorf("message %s: %w", msgs[i].ID, err)
				}
			}
			again = append(again, msgs[i])
		}
		if len(again) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages are not confirmed: %w", len(again), len(msgs), errors.Join(ctx.Err(), last))
		case <-time.After(pause):
		}
		msgs = again
	}
}

// mustPublishAll is publishAll within the harness's timeout.
func mustPublishAll(t *testing.T, h Harness, pub brokers.Publisher, msgs []brokers.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.Timeout)
	defer cancel()
	require.NoError(t, publishAll(ctx, pub, msgs))
}

// confirmed returns the messages whose result is nil.
func confirmed(msgs []brokers.Message, results []error) []brokers.Message {
	var ok []brokers.Message
	for i, err := range results {
		if err == nil {
			ok = append(ok, msgs[i])
		}
	}
	return ok
}

// await fails the test if ch is not closed within d.
func await(t *testing.T, ch <-chan struct{}, d time.Duration, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(d):
		require.FailNowf(t, "waited too long", "%v for %s", d, what)
	}
}

// within runs f and fails the test if it does not return within d.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	await(t, done, d, what)
}

// eventually calls cond until it is true.
func eventually(t *testing.T, d time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !cond(); <-time.After(pause) {
		require.Truef(t, time.Now().Before(deadline), "waited %v for %s", d, what)
	}
}
