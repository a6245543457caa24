package inbox

import (
	"context"
	"sync"
	"time"
)

// hands are goroutines that handlers run in, kept for the next handler: a new one
// would have to grow its stack for each message. A handler needs one other than
// its worker's, since it may end its goroutine, or never return.
type hands struct {
	mu     sync.Mutex
	idle   []chan job
	closed bool
}

type job struct {
	f        func() error
	outcome  *error
	returned chan struct{}
}

// supervise runs f, a handler, which must not take the worker along if it ends
// its goroutine, and must not keep it if it does not return. If it has not
// returned some time after ctx has ended, stubborn is closed when it does; until
// then whatever f uses is f's.
func (h *hands) supervise(ctx context.Context, f func() error) (stubborn <-chan struct{}, err error) {
	returned := make(chan struct{})
	outcome := errGoexit
	h.take() <- job{f, &outcome, returned}
	select {
	case <-returned:
		return nil, outcome
	case <-ctx.Done():
	}
	grace := time.NewTimer(stubbornGrace)
	defer grace.Stop()
	select {
	case <-returned:
		return nil, outcome
	case <-grace.C:
		return returned, nil
	}
}

// take returns an idle hand, or a new one. It takes one job without waiting.
func (h *hands) take() chan<- job {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last := len(h.idle) - 1; last >= 0 {
		hand := h.idle[last]
		h.idle = h.idle[:last]
		return hand
	}
	hand := make(chan job, 1)
	go h.work(hand)
	return hand
}

// work ends with close, or with a handler that ends its goroutine.
func (h *hands) work(hand chan job) {
	for j := range hand {
		h.do(hand, j)
	}
}

func (h *hands) do(hand chan job, j job) {
	defer close(j.returned)
	*j.outcome = guard(j.f)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed { // its handler was given up
		close(hand)
		return
	}
	h.idle = append(h.idle, hand) // before returned is closed, or its worker would need another one
}

// close lets all hands end: those that are idle now, others when their handler
// returns.
func (h *hands) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, hand := range h.idle {
		close(hand)
	}
	h.idle = nil
}
