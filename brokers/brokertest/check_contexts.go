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

// checkPublishContext: a context that ends brings Publish back promptly, what
// is not resolved says so, nothing confirmed is lost, and sending the rest
// again keeps the order.
func checkPublishContext(t *testing.T, h Harness) {
	topic := h.topic(t, 2, 0)
	pub := h.publisher(t)
	keys := keyNames(10)
	require.Empty(t, publish(t, h, pub, nil), "no messages, no results")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	first := messages(topic, keys, 0, 10)
	results := publishPromptly(t, ended, pub, first)
	require.Empty(t, confirmed(first, results), "nothing is confirmed after the context ended")
	all := first
	mustPublishAll(t, h, pub, first)

	for round, timeout := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		msgs := messages(topic, keys, 10+round*200, 210+round*200)
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		results := publishPromptly(t, ctx, pub, msgs)
		cancel()
		var again []brokers.Message
		for i, err := range results {
			if err != nil {
				again = append(again, msgs[i])
			}
		}
		mustPublishAll(t, h, pub, again)
		all = append(all, msgs...)
	}
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, all)
	rec.checkOrder(t)
}

// publishPromptly publishes with a context that has ended or soon will.
func publishPromptly(t *testing.T, ctx context.Context, pub brokers.Publisher, msgs []brokers.Message) []error {
	t.Helper()
	var results []error
	within(t, prompt, "Publish to return after its context ended", func() { results = pub.Publish(ctx, msgs) })
	require.NoError(t, checkResults(msgs, results))
	for i, err := range results {
		if err == nil || errors.Is(err, brokers.ErrHeld) {
			continue
		}
		require.Equalf(t, brokers.ClassUnavailable, brokers.ClassOf(err), "%s: %v", msgs[i].ID, err)
		require.ErrorIsf(t, err, ctx.Err(), "%s is not resolved because the context ended", msgs[i].ID)
	}
	return results
}

// checkClosePublisher: Close, called several times at once, while calls of
// Publish are running: these return, and each result is true.
func checkClosePublisher(t *testing.T, h Harness) {
	const goroutines = 4
	topic := h.topic(t, 2, 0)
	pub := h.publisher(t)
	loads := make([]closedLoad, goroutines)
	started := make(chan struct{}, goroutines)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		var running sync.WaitGroup
		defer running.Wait()
		for g := range loads {
			running.Go(func() { loads[g].run(t.Context(), pub, topic, fmt.Sprintf("key-%d", g), started) })
		}
	}()
	for range goroutines {
		select {
		case <-started:
		case <-time.After(h.Timeout):
			require.FailNow(t, "nothing is confirmed")
		}
	}
	within(t, h.Timeout, "Close to return", func() { closeManyTimes(t, pub.Close) })
	await(t, finished, h.Timeout, "running calls of Publish to return after Close")

	for i, err := range publish(t, h, pub, messages(topic, keyNames(3), 0, 2)) {
		if !errors.Is(err, brokers.ErrHeld) {
			require.ErrorIsf(t, err, brokers.ErrClosed, "result %d of Publish after Close", i)
		}
	}
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	for _, l := range loads {
		require.NoError(t, l.failure)
		rec.await(t, h, 0, l.confirmed)
	}
}

// closedLoad publishes until the publisher is closed.
type closedLoad struct {
	confirmed []brokers.Message
	failure   error
}

func (l *closedLoad) run(ctx context.Context, pub brokers.Publisher, topic Topic, key string, started chan<- struct{}) {
	for n := 0; ; n += 50 {
		msgs := messages(topic, []string{key}, n, n+50)
		results := pub.Publish(ctx, msgs)
		if l.failure = checkResults(msgs, results); l.failure != nil {
			return
		}
		l.confirmed = append(l.confirmed, confirmed(msgs, results)...)
		for i, err := range results {
			switch {
			case err == nil, errors.Is(err, brokers.ErrHeld):
			case !errors.Is(err, brokers.ErrClosed):
				l.failure = fmt.Errorf("%s: want ErrClosed, got %w", msgs[i].ID, err)
				return
			}
		}
		if results[len(results)-1] != nil {
			return
		}
		if n == 0 {
			started <- struct{}{}
		}
	}
}

func closeManyTimes(t *testing.T, f func() error) {
	var running sync.WaitGroup
	results := make([]error, 3)
	for i := range results {
		running.Go(func() { results[i] = f() })
	}
	running.Wait()
	require.NoError(t, errors.Join(append(results, f())...), "Close")
}

// checkCloseSubscriber: Close ends Subscribe, whether it is running, starting
// or has not been called.
func checkCloseSubscriber(t *testing.T, h Harness) {
	topic := h.topic(t, 2, 0)
	msgs := messages(topic, keyNames(10), 0, 10)
	mustPublishAll(t, h, h.publisher(t), msgs)

	rec := newRecord()
	r := read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, msgs)
	within(t, h.Timeout, "Close to return", func() { closeManyTimes(t, r.sub.Close) })
	await(t, r.done, h.Timeout, "Subscribe to return after Close")
	require.NoError(t, r.err)
	within(t, prompt, "Subscribe to return on a closed subscriber", func() {
		r.err = r.sub.Subscribe(t.Context(), rec.ack)
	})
	require.ErrorIs(t, r.err, brokers.ErrClosed)
	r.err = nil

	for range 3 {
		sub := h.NewSubscriber(t, topic)
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			err = sub.Subscribe(t.Context(), rec.ack)
		}()
		closeManyTimes(t, sub.Close)
		await(t, done, h.Timeout, "Subscribe to return when closed while starting")
		if err != nil {
			require.ErrorIs(t, err, brokers.ErrClosed)
		}
	}
}
