package inbox

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// A hand serves one handler after the other, a handler that ends its goroutine
// takes but that along, and none is left when the inbox has ended.
func TestHandsAreKeptAndEnd(t *testing.T) {
	t.Parallel()
	var h hands
	bad := errors.New("bad")
	for range 3 {
		stubborn, err := h.supervise(t.Context(), func() error { return bad })
		require.Nil(t, stubborn)
		require.Equal(t, bad, err)
		require.Len(t, h.idle, 1)
	}
	_, err := h.supervise(t.Context(), func() error { runtime.Goexit(); return nil })
	require.Equal(t, errGoexit, err)
	require.Empty(t, h.idle)

	late, returned := make(chan struct{}), make(chan struct{})
	var outcome error
	h.take() <- job{func() error { <-late; return context.Canceled }, &outcome, returned}
	_, err = h.supervise(t.Context(), func() error { return nil })
	require.NoError(t, err)
	idle := h.idle[0]
	h.close()
	_, open := <-idle
	require.False(t, open, "what was idle ends")
	close(late)
	<-returned
	require.Equal(t, context.Canceled, outcome)
	require.Empty(t, h.idle, "what was given up ends when its handler returns")
}
