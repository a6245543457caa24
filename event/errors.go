package event

import "fmt"

// FieldError says which field of a configuration, type or draft is wrong, why,
// and what to do about it.
type FieldError struct {
	Field   string // for example "Draft.Topic"
	Value   string // offending value, shortened; "" where it does not help
	Problem string // for example "is empty"
	Hint    string // the way out
	Err     error  // underlying error, may be nil
}

// Error implements error.
func (e *FieldError) Error() string {
	s := e.Field
	if e.Value != "" {
		s += fmt.Sprintf(" %q", e.Value)
	}
	s += " " + e.Problem
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the underlying error.
func (e *FieldError) Unwrap() error { return e.Err }
