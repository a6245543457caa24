package inbox

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Room that is given back goes to those who can use it, the longest first, and to
// nobody who has stopped waiting.
func TestRoomIsGranted(t *testing.T) {
	t.Parallel()
	b := &budget{maxCount: 8, maxBytes: 1 << 20}
	stuck, other := &quota{}, &quota{}
	var tasks []*task
	for b.admit(1, stuck) {
		tasks = append(tasks, &task{size: 1, quota: stuck})
	}
	require.Len(t, tasks, 7, "the type leaves room for others")
	require.True(t, b.admit(1, other))

	ended, end := context.WithCancel(t.Context())
	var got atomic.Int32
	wait := func(ctx context.Context, of *quota) <-chan bool {
		waiting := b.waits()
		done := make(chan bool, 1)
		go func() {
			ok := b.take(1, of, ctx, t.Context())
			got.Add(1)
			done <- ok
		}()
		require.Eventually(t, func() bool { return b.waits() > waiting }, 10*time.Second, time.Millisecond)
		return done
	}
	gone, first, second := wait(ended, other), wait(t.Context(), stuck), wait(t.Context(), other)
	end()
	require.False(t, <-gone, "its context has ended")

	b.give(&task{size: 1, quota: other})
	require.True(t, <-second, "the stuck type, though it waited longer, has its share")
	require.EqualValues(t, 2, got.Load())
	b.give(tasks[0], tasks[1])
	require.True(t, <-first)
	require.Equal(t, 7, b.count)
	require.Zero(t, b.waits())
}

func (b *budget) waits() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiters)
}
