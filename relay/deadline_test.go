package relay

import (
	"context"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A heartbeat that is answered late extends the lease from before it was sent,
// as joining does.
func TestHeartbeatCountsFromBeforeItWasSent(t *testing.T) {
	t.Parallel()
	const answered = 600 * time.Millisecond
	cfg := config(&recorder{})
	cfg.Lease = 6 * time.Second
	r := newRelay(t, newDatabase(t).relay, cfg)
	beat := strings.Replace(r.q.beat, " WHERE ", " FROM pg_sleep(0.6) WHERE ", 1)
	require.NotEqual(t, r.q.beat, beat)
	r.q.beat = beat
	tn, err := r.join(t.Context(), token{})
	require.NoError(t, err)
	defer tn.end(nil)
	deadline := func() time.Time {
		tn.mu.Lock()
		defer tn.mu.Unlock()
		return tn.deadline
	}
	joined := deadline()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tn.heartbeat(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	eventually(t, func() bool { return deadline() != joined }, "a heartbeat is answered")
	sent := deadline().Add(-cfg.Lease * 4 / 5)
	require.GreaterOrEqual(t, time.Since(sent), answered)
	require.True(t, deadline().After(joined))
}

// While a machine is suspended the monotonic clock stands still, and the lease
// runs out all the same.
func TestDeadlineHoldsThroughSuspension(t *testing.T) {
	t.Parallel()
	r := newRelay(t, newDatabase(t).relay, config(&recorder{}))
	var suspended time.Duration
	r.tune.now = func() time.Time { return afterSuspension(t, time.Now(), suspended) }
	tn, err := r.join(t.Context(), token{})
	require.NoError(t, err)
	defer tn.end(nil)
	require.True(t, tn.alive())
	suspended = r.cfg.Lease
	require.False(t, tn.alive())
	require.ErrorIs(t, context.Cause(tn.work), errLeaseLost)
}

// afterSuspension moves now's wall clock on and leaves its monotonic one, which
// no function of package time does: the seconds are above bit 30 of its first word.
func afterSuspension(t *testing.T, now time.Time, d time.Duration) time.Time {
	moved := now
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(d/time.Second) << 30
	require.Zero(t, moved.Sub(now), "monotonic clock")
	require.Equal(t, d, moved.Round(0).Sub(now.Round(0)), "wall clock")
	return moved
}
