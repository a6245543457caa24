package kafka

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// marks records what a window marks.
type marks struct {
	next     int64
	restarts int
}

func (m *marks) window(size int) *window {
	return newWindow(size, func(next int64) { m.next = next }, func() { m.restarts++ })
}

func TestOnlyTheContiguousDoneIsMarked(t *testing.T) {
	for range 50 {
		var m marks
		w := m.window(1000)
		offset := func(i int) int64 { return int64(3*i + 7) } // compacted topics have gaps
		settlers := make([]brokers.Settler, 100)
		for i := range settlers {
			settlers[i] = w.add(offset(i))
		}
		done := make([]bool, len(settlers))
		for _, i := range rand.Perm(len(settlers)) {
			require.NoError(t, settlers[i].Ack())
			require.NoError(t, settlers[i].Ack(), "twice does nothing")
			done[i] = true
			first := 0
			for first < len(done) && done[first] {
				first++
			}
			want := int64(0)
			if first > 0 {
				want = offset(first-1) + 1
			}
			require.Equal(t, want, m.next)
		}
		require.Empty(t, w.entries)
		w.wait(t.Context())
	}
}

func TestReleasedIsNeverPassed(t *testing.T) {
	var m marks
	w := m.window(1000)
	a, b, c := w.add(0), w.add(1), w.add(2)
	b.Release()
	require.Equal(t, 1, m.restarts)
	require.ErrorIs(t, c.Ack(), brokers.ErrStale, "it comes again behind the released one")
	require.NoError(t, a.Ack())
	require.EqualValues(t, 1, m.next)
	w.wait(t.Context()) // everything is settled
}

func TestNothingIsMarkedAfterTheSession(t *testing.T) {
	var m marks
	w := m.window(1000)
	a, b := w.add(0), w.add(1)
	require.NoError(t, a.Ack())
	w.close()
	require.ErrorIs(t, b.Ack(), brokers.ErrStale)
	b.Release()
	require.EqualValues(t, 1, m.next)
	require.Zero(t, m.restarts)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	w.wait(ended) // b is not settled: only the context ends this
}

func TestWindowHasRoomAgainWhenItsFirstIsDone(t *testing.T) {
	roomy := func(w *window) bool {
		select {
		case <-w.room():
			return true
		default:
			return false
		}
	}
	var m marks
	w := m.window(3)
	a, b, c := w.add(0), w.add(1), w.add(2)
	require.False(t, roomy(w))
	require.NoError(t, b.Ack())
	require.NoError(t, c.Ack())
	require.False(t, roomy(w), "what a crash would repeat is bounded, not what is unsettled")
	require.NoError(t, a.Ack())
	require.True(t, roomy(w))
	w.add(3)
	require.True(t, roomy(w))
}
