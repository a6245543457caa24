package deduptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
)

type outcome struct {
	answer dedup.Answer
	err    error
}

// start calls Once in a goroutine.
func (s *store) start(ctx context.Context, k dedup.Key, do doFunc) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		answer, err := s.once(ctx, k, do)
		done <- outcome{answer, err}
	}()
	return done
}

// hold starts a call that runs until release is called with its result.
func (s *store) hold(k dedup.Key) (release func(error), done <-chan outcome) {
	entered, end := make(chan struct{}), make(chan error, 1)
	s.t.Cleanup(func() { // a check that failed has not released it
		select {
		case end <- errFailed:
		default:
		}
	})
	done = s.start(s.t.Context(), k, func(context.Context) ([]byte, error) {
		close(entered)
		return []byte("held"), <-end
	})
	select {
	case <-entered:
	case o := <-done:
		require.NoError(s.t, o.err)
		require.FailNow(s.t, "the first call did not run")
	case <-time.After(patience):
		require.FailNow(s.t, "the first call does not run")
	}
	return func(err error) { end <- err }, done
}

func (s *store) wait(done <-chan outcome) outcome {
	s.t.Helper()
	select {
	case o := <-done:
		return o
	case <-time.After(patience):
		require.FailNow(s.t, "a call does not return")
		return outcome{}
	}
}

// undecided is how long a call is watched that must wait: it cannot be seen from
// outside that it does, only that it has not returned.
const undecided = 50 * time.Millisecond

func (s *store) stillWaits(done <-chan outcome) {
	s.t.Helper()
	select {
	case o := <-done:
		require.FailNow(s.t, "it should wait", "%+v", o)
	case <-time.After(undecided):
	}
}

func secondWaitsForTheFirst(t *testing.T, s *store) {
	release, first := s.hold(key("1"))
	second := s.start(t.Context(), key("1"), s.never)
	s.stillWaits(second)
	release(nil)
	require.NoError(t, s.wait(first).err)
	o := s.wait(second)
	require.NoError(t, o.err)
	require.Equal(t, dedup.Answer{Response: []byte("held"), Duplicate: true}, o.answer)
}

func secondRunsWhenTheFirstFails(t *testing.T, s *store) {
	release, first := s.hold(key("1"))
	second := s.start(t.Context(), key("1"), returns("second"))
	s.stillWaits(second)
	release(errFailed)
	require.ErrorIs(t, s.wait(first).err, errFailed)
	o := s.wait(second)
	require.NoError(t, o.err)
	require.Equal(t, dedup.Answer{Response: []byte("second")}, o.answer)
}

func waitingEndsWithItsContext(t *testing.T, s *store) {
	release, first := s.hold(key("1"))
	ctx, cancel := context.WithCancel(t.Context())
	second := s.start(ctx, key("1"), s.never)
	s.stillWaits(second)
	cancel()
	require.ErrorIs(t, s.wait(second).err, context.Canceled)
	release(nil)
	require.NoError(t, s.wait(first).err)
	answer, err := s.once(t.Context(), key("1"), s.never)
	require.NoError(t, err)
	require.True(t, answer.Duplicate)
}

func otherKeysDoNotWait(t *testing.T, s *store) {
	release, first := s.hold(key("1"))
	o := s.wait(s.start(t.Context(), key("2"), returns("two")))
	require.NoError(t, o.err)
	require.False(t, o.answer.Duplicate)
	release(nil)
	require.NoError(t, s.wait(first).err)
}

func secondGetsAConflict(t *testing.T, s *store) {
	for _, end := range []error{errFailed, nil} {
		release, first := s.hold(key("1"))
		require.ErrorIs(t, s.wait(s.start(t.Context(), key("1"), s.never)).err, dedup.ErrInProgress)
		o := s.wait(s.start(t.Context(), key(fmt.Sprint("other ", end)), returns("other")))
		require.NoError(t, o.err)
		release(end)
		require.ErrorIs(t, s.wait(first).err, end)
	}
	answer, err := s.once(t.Context(), key("1"), s.never)
	require.NoError(t, err)
	require.Equal(t, "held", string(answer.Response))
}

// storm calls few keys from many goroutines, half of the calls failing, until each
// key has been handled.
func storm(t *testing.T, s *store) {
	const keys, callers, rounds = 5, 16, 20
	var running, handled [keys]atomic.Int32
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for round := range rounds {
				k := rand.IntN(keys)
				want := fmt.Sprint("response ", k)
				answer, err := s.once(t.Context(), key(fmt.Sprint(k)), func(context.Context) ([]byte, error) {
					assert.EqualValues(t, 1, running[k].Add(1), "two run at once")
					defer running[k].Add(-1)
					if round < rounds-1 && rand.IntN(2) == 0 {
						return nil, errFailed
					}
					handled[k].Add(1)
					return []byte(want), nil
				})
				switch {
				case errors.Is(err, errFailed), errors.Is(err, dedup.ErrInProgress):
				case assert.NoError(t, err):
					assert.Equal(t, want, string(answer.Response))
				}
			}
		})
	}
	wg.Wait()
	for k := range handled {
		_, err := s.once(t.Context(), key(fmt.Sprint(k)), func(context.Context) ([]byte, error) { // unless each attempt failed
			handled[k].Add(1)
			return nil, nil
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, handled[k].Load(), "key %d", k)
	}
}
