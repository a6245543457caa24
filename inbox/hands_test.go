package inbox

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A worker goes on after handlers that fail, end their goroutine, lock their thread
// or do not return.
func TestWorkerOutlivesItsHandlers(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	late, over := make(chan struct{}), make(chan struct{})
	runtime.LockOSThread() // the service's
	defer runtime.UnlockOSThread()
	var running sync.WaitGroup
	lend(&running, func(h *hand) {
		defer close(over)
		for range 3 {
			stubborn, err := h.supervise(t.Context(), func() error { return bad })
			require.Nil(t, stubborn)
			require.Equal(t, bad, err)
		}
		for range 3 {
			stubborn, err := h.supervise(t.Context(), func() error { runtime.Goexit(); return nil })
			require.Nil(t, stubborn)
			require.Equal(t, errGoexit, err)
			_, err = h.supervise(t.Context(), func() error { runtime.LockOSThread(); runtime.LockOSThread(); return nil })
			require.NoError(t, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		stubborn, err := h.supervise(ctx, func() error { <-late; return bad })
		require.NoError(t, err)
		require.NotNil(t, stubborn)
		for range 3 {
			_, err = h.supervise(t.Context(), func() error { return bad })
			require.Equal(t, bad, err)
		}
		select {
		case <-stubborn:
			require.Fail(t, "it has not returned")
		default:
		}
		close(late)
		<-stubborn
	})
	running.Wait()
	<-over
}
