package schema

import (
	"strings"

	"github.com/outboxkit/outboxkit/event"
)

// Mode says which versions of a schema must be able to read which. The names are
// Confluent's.
type Mode string

// The modes. BACKWARD: the new schema reads data of the latest version, so that
// consumers may be deployed first. FORWARD: the latest version reads data of the
// new schema, so that producers may be. FULL: both. With TRANSITIVE: not only the
// latest version but every one.
const (
	None               Mode = "NONE"
	Backward           Mode = "BACKWARD"
	BackwardTransitive Mode = "BACKWARD_TRANSITIVE"
	Forward            Mode = "FORWARD"
	ForwardTransitive  Mode = "FORWARD_TRANSITIVE"
	Full               Mode = "FULL"
	FullTransitive     Mode = "FULL_TRANSITIVE"
)

var modes = []Mode{None, Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive}

// ParseMode reads a mode's name in any case, with "_" or "-".
func ParseMode(s string) (Mode, error) {
	name := Mode(strings.ToUpper(strings.ReplaceAll(s, "-", "_")))
	names := make([]string, len(modes))
	for i, m := range modes {
		if m == name {
			return m, nil
		}
		names[i] = string(m)
	}
	return "", &event.FieldError{Field: "mode", Value: s, Problem: "is not known", Hint: "use " + strings.Join(names, ", ")}
}

// backward: the new schema must read old data.
func (m Mode) backward() bool {
	return m == Backward || m == BackwardTransitive || m == Full || m == FullTransitive
}

// forward: old schemas must read new data.
func (m Mode) forward() bool {
	return m == Forward || m == ForwardTransitive || m == Full || m == FullTransitive
}

// Transitive says whether all earlier versions matter, not only the latest.
func (m Mode) Transitive() bool { return strings.HasSuffix(string(m), "_TRANSITIVE") }
