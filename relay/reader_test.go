package relay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A database that answers at once is polled at the usual pace, one that is slow
// as it can bear, and never so seldom that nobody notices what comes.
func TestPollingLeavesTheDatabaseToItsWriters(t *testing.T) {
	t.Parallel()
	tune := defaultTuning()
	for busy, want := range map[time.Duration]time.Duration{0: 8, 2: 8, 3: 12, 20: 80, 23: 90, 60_000: 90} {
		require.Equal(t, want*time.Millisecond, tune.spare(8*time.Millisecond, busy*time.Millisecond), busy)
	}
	require.Equal(t, 90*time.Millisecond, tune.spare(90*time.Millisecond, time.Millisecond))
}

// Few events are found at once, many are left to gather a little, and where there
// are none the pauses grow.
func TestPollingFollowsTheEvents(t *testing.T) {
	t.Parallel()
	tune := defaultTuning()
	for n, want := range map[int]time.Duration{1: 2, 8: 2, 16: 4, 32: 8, 9000: 8} {
		require.Equal(t, want*time.Millisecond, tune.next(90*time.Millisecond, n), n)
	}
	pause := tune.pollMin
	for _, want := range []time.Duration{8, 32, 90, 90} {
		pause = tune.next(pause, 0)
		require.Equal(t, want*time.Millisecond, pause)
	}
}
