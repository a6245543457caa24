package brokers

import (
	"errors"
	"fmt"
)

// Class says whose fault a failed publication is, and so what helps.
type Class int

const (
	// ClassUnavailable: the broker is away, has no leader, is blocked, or did not
	// answer in time. Everything through this publisher is concerned; try again.
	ClassUnavailable Class = iota
	// ClassDestination: this topic is unknown, unroutable or forbidden. Other
	// topics are fine; somebody has to mend the destination.
	ClassDestination
	// ClassRejected: this message can never be accepted (too large by itself).
	ClassRejected
)

// String returns "unavailable", "destination" or "rejected".
func (c Class) String() string {
	switch c {
	case ClassDestination:
		return "destination"
	case ClassRejected:
		return "rejected"
	default:
		return "unavailable"
	}
}

// Error is a failed publication.
type Error struct {
	Class Class
	Topic string // "" if no topic is concerned
	Err   error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Topic == "" {
		return fmt.Sprintf("%s: %v", e.Class, e.Err)
	}
	return fmt.Sprintf("%s: topic %q: %v", e.Class, e.Topic, e.Err)
}

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of a publication's error. An error of no known
// class counts as ClassUnavailable: trying again loses nothing.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ClassUnavailable
}

var (
	// ErrHeld is the result of a message that was not sent because an earlier
	// message of its key in the same call failed.
	ErrHeld = errors.New("held back: an earlier message of the same key failed")
	// ErrClosed says that the publisher or subscriber has been closed.
	ErrClosed = errors.New("closed")
	// ErrStale is what Ack returns when the session that made the delivery has
	// ended (connection lost, partition given to another member): the broker will
	// deliver the message again, here or elsewhere.
	ErrStale = errors.New("the delivery's session has ended; it will be delivered again")
)
