package brokertest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// checkOrderInOneCall: keys that take turns in one large call, and one key with
// 2,000 messages, arrive in order.
func checkOrderInOneCall(t *testing.T, h Harness) {
	topic := h.topic(t, 4, 0)
	pub := h.publisher(t)
	msgs := messages(topic, keyNames(200), 0, 10)
	msgs = append(msgs, messages(topic, []string{"one"}, 0, 2_000)...)
	mustPublishAll(t, h, pub, msgs)

	rec := newRecord()
	read(t, h, topic, rec, rec.ack)
	rec.await(t, h, 0, msgs)
	rec.checkOrder(t)
}

// checkOrderOverCalls: several goroutines publish through one publisher, each
// its own keys, each waiting for a call before it makes the next.
func checkOrderOverCalls(t *testing.T, h Harness) {
	const goroutines, calls, perCall = 8, 20, 5
	topic := h.topic(t, 4, 0)
	pub := h.publisher(t)
	rec := newRecord()
	read(t, h, topic, rec, rec.ack)

	ctx, cancel := context.WithTimeout(t.Context(), h.Timeout)
	defer cancel()
	var running sync.WaitGroup
	var all []brokers.Message
	failures := make([]error, goroutines)
	for g := range goroutines {
		keys := []string{fmt.Sprintf("%d-a", g), fmt.Sprintf("%d-b", g), fmt.Sprintf("%d-c", g)}
		all = append(all, messages(topic, keys, 0, calls*perCall)...)
		running.Go(func() {
			for call := range calls {
				batch := messages(topic, keys, call*perCall, (call+1)*perCall)
				if failures[g] = publishAll(ctx, pub, batch); failures[g] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	for _, err := range failures {
		require.NoError(t, err)
	}
	rec.await(t, h, 0, all)
	rec.checkOrder(t)
}
