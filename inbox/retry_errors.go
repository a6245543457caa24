package inbox

import "errors"

// Permanent marks a handler's error as one that another attempt cannot mend: the
// event becomes a dead letter at once. Errors of the handler's own that have a
// method Permanent() bool are asked likewise, wrapped or not. For errors of
// others see Config.Classify.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string   { return e.err.Error() }
func (e *permanentError) Unwrap() error   { return e.err }
func (e *permanentError) Permanent() bool { return true }

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// Unavailable marks a handler's error as one that is no fault of the event: what
// the handler depends on is away, and any event of this type would fail. The
// attempt does not count, and the type's circuit opens at once instead of after
// some failures; see Config.Breaker. Errors of the handler's own that have a
// method Unavailable() bool are asked likewise, wrapped or not.
//
// It is not for what concerns one event alone, as a customer's own address that
// does not answer: that one would hold up all.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &unavailableError{err}
}

type unavailableError struct{ err error }

func (e *unavailableError) Error() string     { return e.err.Error() }
func (e *unavailableError) Unwrap() error     { return e.err }
func (e *unavailableError) Unavailable() bool { return true }

func isUnavailable(err error) bool {
	var u interface{ Unavailable() bool }
	return errors.As(err, &u) && u.Unavailable()
}

// classify asks Config.Classify.
func (c *Config) classify(err error) error {
	if c.Classify == nil {
		return err
	}
	if marked := c.Classify(err); marked != nil {
		return marked
	}
	return err
}
