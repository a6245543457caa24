package dedup_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/dedup/deduptest"
)

func memory(t testing.TB, cfg dedup.MemoryConfig) *dedup.Memory {
	t.Helper()
	m, err := dedup.NewMemory(cfg)
	require.NoError(t, err)
	return m
}

func TestMemory(t *testing.T) {
	t.Parallel()
	deduptest.Run(t, func(t testing.TB, concurrent dedup.Concurrent) deduptest.Begin {
		m := memory(t, dedup.MemoryConfig{Concurrent: concurrent})
		return func(context.Context) (dedup.Store, func(bool) error, error) {
			return m, func(bool) error { return nil }, nil
		}
	})
}

// pass lets time pass in a bubble, which takes none.
func pass(d time.Duration) { <-time.After(d) }

func nothing(context.Context) ([]byte, error) { return nil, nil }

// A key is forgotten a TTL after it was handled, not after it began; one that
// runs never is.
func TestMemoryForgetsAfterTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := memory(t, dedup.MemoryConfig{TTL: time.Hour, Concurrent: dedup.Conflict})
		end := make(chan struct{})
		go func() {
			_, _ = m.Once(t.Context(), foreignKey("runs"), func(context.Context) ([]byte, error) { <-end; return nil, nil })
		}()
		synctest.Wait()
		_, err := m.Once(t.Context(), foreignKey(1), nothing)
		require.NoError(t, err)
		pass(time.Hour - time.Nanosecond)
		answer, err := m.Once(t.Context(), foreignKey(1), nothing)
		require.NoError(t, err)
		require.True(t, answer.Duplicate)
		require.Equal(t, 2, m.Len())
		pass(time.Nanosecond)
		require.Equal(t, 1, m.Len(), "only what runs")
		answer, err = m.Once(t.Context(), foreignKey(1), nothing)
		require.NoError(t, err)
		require.False(t, answer.Duplicate)
		_, err = m.Once(t.Context(), foreignKey("runs"), nothing)
		require.ErrorIs(t, err, dedup.ErrInProgress)
		pass(10 * time.Hour)
		_, err = m.Once(t.Context(), foreignKey("runs"), nothing)
		require.ErrorIs(t, err, dedup.ErrInProgress)
		close(end)
		synctest.Wait()
		answer, err = m.Once(t.Context(), foreignKey("runs"), nothing)
		require.NoError(t, err)
		require.True(t, answer.Duplicate)
	})
}

// Full of keys that may still be repeated, it refuses new ones rather than forget
// one; known ones are answered, failures give their room back.
func TestMemoryRefusesWhenFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := memory(t, dedup.MemoryConfig{TTL: time.Hour, MaxEntries: 3})
		_, err := m.Once(t.Context(), foreignKey("fails"), func(context.Context) ([]byte, error) { return nil, errBroken })
		require.ErrorIs(t, err, errBroken)
		for n := range 3 {
			pass(time.Minute)
			_, err := m.Once(t.Context(), foreignKey(n), nothing)
			require.NoError(t, err)
		}
		_, err = m.Once(t.Context(), foreignKey(3), nothing)
		require.ErrorIs(t, err, dedup.ErrFull)
		require.EqualError(t, err, "dedup: the memory is full: 3 keys are running or younger than 1h0m0s (raise MemoryConfig.MaxEntries or lower TTL)")
		answer, err := m.Once(t.Context(), foreignKey(0), nothing)
		require.NoError(t, err)
		require.True(t, answer.Duplicate)
		pass(58 * time.Minute) // the first is an hour old
		_, err = m.Once(t.Context(), foreignKey(3), nothing)
		require.NoError(t, err)
		_, err = m.Once(t.Context(), foreignKey(0), nothing)
		require.ErrorIs(t, err, dedup.ErrFull)
	})
}
