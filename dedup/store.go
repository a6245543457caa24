package dedup

import (
	"context"
	"errors"
	"fmt"
)

// Store runs what may happen once: a command by its Idempotency-Key, a webhook by
// its delivery's id. [Postgres.In] and [Postgres.InSQL] are stores whose memory is
// part of a transaction; [Memory] forgets with its process. Package
// dedup/deduptest holds the suite that both pass.
type Store interface {
	// Once calls do, unless a call with the same key has succeeded before, and
	// returns what do returned: now, or then.
	//
	// If do fails or panics nothing is remembered, and the next call with the key
	// runs again; its error is returned as it is. Two calls with one key never run
	// at once: the second waits for the first, until ctx ends, or gets
	// ErrInProgress at once, as the store was configured.
	Once(ctx context.Context, key Key, do func(ctx context.Context) (response []byte, err error)) (Answer, error)
}

// Answer is what became of a call of Once.
type Answer struct {
	// Response is what do returned; empty where nil was. The caller may keep it.
	Response []byte
	// Duplicate: do was not called; Response is from an earlier call.
	Duplicate bool
}

// Concurrent says what a store does while another call with the same key runs.
type Concurrent int

const (
	// Wait waits for the other's end.
	Wait Concurrent = iota
	// Conflict refuses with ErrInProgress.
	Conflict
)

// String returns "wait" or "conflict".
func (c Concurrent) String() string {
	switch c {
	case Wait:
		return "wait"
	case Conflict:
		return "conflict"
	}
	return fmt.Sprintf("Concurrent(%d)", int(c))
}

func (c Concurrent) known() bool { return c == Wait || c == Conflict }

var (
	// ErrInProgress says that another call with the same key is running, of a
	// store configured with [Conflict].
	ErrInProgress = errors.New("dedup: another call with this key is running")
	// ErrFull says that a [Memory] has no room for another key.
	ErrFull = errors.New("dedup: the memory is full")
)
