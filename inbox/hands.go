package inbox

import (
	"context"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A handler may end its goroutine, or never return, and its worker must go on.
// So a worker is a coroutine, and whoever drives it runs the handlers that it
// asks for. Where a handler is given up, or has taken its goroutine along,
// another goroutine drives on. A goroutine for each handler would be simpler, but
// to wake it and to be woken by it goes through the scheduler, which on busy cores
// costs as much as several messages of a batch.

// worker is one of a runner's.
type worker struct {
	*runner
	*hand
}

// hand is what a worker has its handlers run by.
type hand struct {
	resume func() (struct{}, bool) // lets the worker go on until it asks for a handler: true, or ends
	ask    func(struct{}) bool
	ended  func() // the worker has

	job struct {
		ctx context.Context //nolint:containedctx // the handler's
		f   func() error
	}
	outcome struct {
		stubborn <-chan struct{}
		err      error
	}
}

// lend runs work, and counts it among running until it ends.
func lend(running *sync.WaitGroup, work func(*hand)) {
	running.Add(1)
	go func() {
		h := &hand{ended: running.Done}
		h.resume, _ = iter.Pull(func(yield func(struct{}) bool) { // not in Run's goroutine, which may be locked to its thread
			h.ask = yield
			work(h)
		})
		h.drive()
	}()
}

// supervise runs f, a handler, for the worker, which is its only caller. If f has
// not returned some time after ctx has ended, stubborn is closed when it does;
// until then whatever f uses is f's.
func (h *hand) supervise(ctx context.Context, f func() error) (stubborn <-chan struct{}, err error) {
	h.job.ctx, h.job.f = ctx, f
	h.ask(struct{}{})
	return h.outcome.stubborn, h.outcome.err
}

// drive drives the worker until it ends, or until another goroutine does.
func (h *hand) drive() {
	for {
		if _, more := h.resume(); !more {
			h.ended()
			return
		}
		if !h.handle() {
			return
		}
	}
}

// handle runs a handler. It reports false if another goroutine drives on.
func (h *hand) handle() (mine bool) {
	f := h.job.f
	var decided atomic.Bool // by whoever goes on with the worker
	returned := make(chan struct{})
	stop := context.AfterFunc(h.job.ctx, func() {
		grace := time.NewTimer(stubbornGrace)
		defer grace.Stop()
		select {
		case <-returned:
			return
		case <-grace.C:
		}
		if decided.CompareAndSwap(false, true) {
			h.outcome.stubborn, h.outcome.err = returned, nil
			h.drive()
		}
	})
	err, complete := errGoexit, false
	defer func() {
		stop()
		close(returned)
		if !decided.CompareAndSwap(false, true) {
			return // given up
		}
		h.outcome.stubborn, h.outcome.err = nil, err
		if mine = complete; !mine {
			go h.drive() // this goroutine ends
		}
	}()
	err = guard(f)
	complete = true
	for range 10 { // should the handler have forgotten to, more than once: a locked goroutine cannot resume a worker
		runtime.UnlockOSThread()
	}
	return
}
