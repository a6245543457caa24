package avro

import (
	"errors"
	"fmt"
)

var (
	// ErrSchema says that a schema document is not valid Avro, or exceeds the
	// limits of this package.
	ErrSchema = errors.New("invalid Avro schema")
	// ErrIncompatible says that data of the writer's schema cannot be read with
	// the reader's. The message names the field.
	ErrIncompatible = errors.New("writer's schema cannot be read with the reader's")
)

// DataError says that encoded bytes do not fit the schema they claim to have.
// Trying again does not help.
type DataError struct {
	Path   string // where in the data, for example items[3].qty; "" is the top
	Offset int    // first byte that is wrong, counted from 0
	Err    error  // what is wrong
}

// Error implements error.
func (e *DataError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("avro: byte %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("avro: %s at byte %d: %v", e.Path, e.Offset, e.Err)
}

// Unwrap returns the underlying error.
func (e *DataError) Unwrap() error { return e.Err }

// within returns err with its path put below segment: a field name, or an index
// in brackets. Paths are built only while an error travels up.
func within(segment string, err error) error {
	var e *DataError
	if errors.As(err, &e) {
		e.Path = joinPath(segment, e.Path)
	}
	return err
}

func joinPath(parent, child string) string {
	if parent == "" || child == "" || child[0] == '[' {
		return parent + child
	}
	return parent + "." + child
}

func schemaErrorf(format string, args ...any) error {
	return fmt.Errorf("avro: %w: %w", ErrSchema, fmt.Errorf(format, args...))
}
