package kafka

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// call is one Publish under way.
type call struct {
	msgs    []brokers.Message // only topic and key are read, and only before over
	lastErr func(topic string) error
	over    chan struct{} // closed when Publish has returned or is about to
	done    chan struct{} // closed when every result is known
	anyFail atomic.Bool   // whether failed has entries

	reading sync.Mutex // held while the caller's messages are read in the background

	mu       sync.Mutex
	finished bool
	left     int
	results  []error
	failed   map[orderKey]struct{} // keys of which a message has failed
	parts    []*partition          // poked when the call is over
}

type orderKey struct{ topic, key string }

// errPending marks a result that is not known yet.
var errPending = errors.New("pending")

func newCall(msgs []brokers.Message, lastErr func(topic string) error) *call {
	c := &call{
		msgs: msgs, lastErr: lastErr, left: len(msgs), results: make([]error, len(msgs)),
		over: make(chan struct{}), done: make(chan struct{}),
	}
	for i := range c.results {
		c.results[i] = errPending
	}
	return c
}

// joined notes that part holds messages of the call.
func (c *call) joined(part *partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parts = append(c.parts, part)
}

// isOver reports whether nothing of the call may be sent any more.
func (c *call) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// succeed and fail set one result, once.
func (c *call) succeed(items []item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range items {
		c.set(it.index, nil)
	}
}

func (c *call) fail(index int32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setFailed(index, err)
}

// failAll fails messages that have not been handed to a partition.
func (c *call) failAll(idx []int32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range idx {
		c.setFailed(i, err)
	}
}

// setFailed and set are called with mu held.
func (c *call) setFailed(index int32, err error) {
	if c.finished {
		return
	}
	if m := &c.msgs[index]; m.Key != "" {
		if c.failed == nil {
			c.failed = make(map[orderKey]struct{})
		}
		c.failed[orderKey{m.Topic, m.Key}] = struct{}{}
		c.anyFail.Store(true)
	}
	c.set(index, err)
}

func (c *call) set(index int32, err error) {
	if c.finished || c.results[index] != errPending { //nolint:errorlint // identity of our own mark
		return
	}
	c.results[index] = err
	if c.left--; c.left == 0 {
		c.finished = true
		close(c.over)
		close(c.done)
	}
}

// held reports whether an earlier message of the same key has failed, and if so
// sets the result.
func (c *call) held(index int32) bool {
	if !c.anyFail.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return true
	}
	m := &c.msgs[index]
	if _, ok := c.failed[orderKey{m.Topic, m.Key}]; !ok || m.Key == "" {
		return false
	}
	c.set(index, brokers.ErrHeld)
	return true
}

// read runs f, which reads the caller's messages, unless the call is over.
func (c *call) read(f func()) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if !c.isOver() {
		f()
	}
}

// finish ends the call: whatever is not resolved fails because of cause. Nobody
// reads the caller's messages afterwards.
func (c *call) finish(cause error) []error {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return c.results
	}
	c.finished = true
	close(c.over)
	errs := make(map[string]error)
	for i, err := range c.results {
		if err != errPending { //nolint:errorlint // identity of our own mark
			continue
		}
		name := c.msgs[i].Topic
		if errs[name] == nil {
			errs[name] = c.unresolved(name, cause)
		}
		c.results[i] = errs[name]
	}
	c.msgs = nil
	for _, part := range c.parts {
		part.wake()
	}
	return c.results
}

// unresolved is the result of the messages of one topic that finish finds open.
func (c *call) unresolved(name string, cause error) error {
	if errors.Is(cause, brokers.ErrClosed) {
		return brokers.ErrClosed
	}
	var late *timeoutError
	if errors.As(cause, &late) {
		cause = &timeoutError{after: late.after, last: c.lastErr(name)}
	}
	return &brokers.Error{Class: brokers.ClassUnavailable, Topic: name, Err: cause}
}

// timeoutError says that PublishTimeout has passed.
type timeoutError struct {
	after time.Duration
	last  error // what went wrong on the way, may be nil
}

func (e *timeoutError) Error() string {
	if e.last == nil {
		return fmt.Sprintf("not confirmed within %s", e.after)
	}
	return fmt.Sprintf("not confirmed within %s; last error: %v", e.after, e.last)
}

func (e *timeoutError) Unwrap() error { return e.last }

// Timeout follows net.Error.
func (e *timeoutError) Timeout() bool { return true }
