package rabbitmq

import (
	"context"
	"sync"

	"github.com/outboxkit/outboxkit/brokers"
)

// living is something that is opened, used by many and dies.
type living interface {
	comparable
	alive() bool
}

// shared opens a T when somebody needs one and there is none alive. Everybody
// waits for the same attempt, which nobody's context ends but its own.
type shared[T living] struct {
	ctx  context.Context // ends every attempt
	open func(ctx context.Context) (T, error)

	mu       sync.Mutex
	current  T
	attempt  *attempt[T] // nil unless one is under way
	attempts sync.WaitGroup
}

type attempt[T living] struct {
	done chan struct{}
	t    T
	err  error
}

// get returns a T that was alive just now.
func (s *shared[T]) get(ctx context.Context) (T, error) {
	var none T
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return none, brokers.ErrClosed
	}
	if t := s.current; t != none && t.alive() {
		s.mu.Unlock()
		return t, nil
	}
	a := s.attempt
	if a == nil {
		a = &attempt[T]{done: make(chan struct{})}
		s.attempt = a
		s.attempts.Go(func() { s.try(a) })
	}
	s.mu.Unlock()

	select {
	case <-a.done:
		return a.t, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-s.ctx.Done():
		return none, brokers.ErrClosed
	}
}

func (s *shared[T]) try(a *attempt[T]) {
	a.t, a.err = s.open(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempt = nil
	if a.err == nil {
		s.current = a.t
	}
	close(a.done)
}

// last waits for a running attempt and returns what was opened last, if anything.
// Call it when ctx has ended.
func (s *shared[T]) last() (T, bool) {
	s.attempts.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var none T
	return s.current, s.current != none
}
