//go:build faults

package e2e

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// gathered counts the messages that a subscriber delivers, by id.
type gathered struct {
	mu   sync.Mutex
	seen map[string]int
}

func gather(t *testing.T, from brokers.Subscriber) *gathered {
	t.Helper()
	g := &gathered{seen: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- from.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
			g.mu.Lock()
			g.seen[d.Message.ID]++
			g.mu.Unlock()
			_ = d.Ack() // stale: it comes again
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, from.Close())
	})
	return g
}

// count is the number of different messages.
func (g *gathered) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.seen)
}

func (g *gathered) ids() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.seen))
}

// total is the number of deliveries.
func (g *gathered) total() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, times := range g.seen {
		n += times
	}
	return n
}
