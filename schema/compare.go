package schema

import (
	"fmt"
	"strings"

	"github.com/outboxkit/outboxkit/event"
)

// Rule names what keeps a reader from reading a writer's data.
type Rule string

// The rules; all but the last two are those of Avro's own SchemaCompatibility.
const (
	MissingDefault Rule = "MISSING_DEFAULT"       // the reader has a field that the writer has not, without default
	TypeMismatch   Rule = "TYPE_MISMATCH"         // and no promotion leads from one to the other
	NameMismatch   Rule = "NAME_MISMATCH"         // of a record, enum or fixed, without alias
	SizeMismatch   Rule = "FIXED_SIZE_MISMATCH"   // of a fixed
	MissingSymbols Rule = "MISSING_ENUM_SYMBOLS"  // the reader's enum lacks symbols and has no default
	MissingBranch  Rule = "MISSING_UNION_BRANCH"  // no branch of the reader takes a branch of the writer
	BadDefault     Rule = "INVALID_DEFAULT"       // a default that is needed does not fit its type
	MeaningDiffers Rule = "LOGICAL_TYPE_MISMATCH" // the same number would mean something else
)

// Problem is one reason why a reader cannot read all of a writer's data.
type Problem struct {
	Path           string // in the data, for example items[].qty; "" is the top
	Rule           Rule
	Reader, Writer string // what they have there, for people; may be ""
}

// Compare returns what keeps a reader with one schema from reading what a writer
// with another may write; nothing if it can. The error is for schemas that are
// no valid ones.
type Compare func(reader, writer event.Schema) ([]Problem, error)

// Violation is a change that breaks a mode.
type Violation struct {
	Problem

	Breaks  Mode // Backward or Forward
	Version int  // the earlier version that is concerned
}

// String is for example: field `items[].qty`: added without default breaks BACKWARD.
func (v Violation) String() string {
	at := "the schema"
	if v.Path != "" {
		at = "field `" + v.Path + "`"
	}
	return fmt.Sprintf("%s: %s breaks %s", at, v.change(), v.Breaks)
}

// change describes the problem as what was done to the earlier version.
func (v Violation) change() string {
	before, after := v.Writer, v.Reader
	forward := v.Breaks == Forward
	if forward {
		before, after = after, before
	}
	switch v.Rule {
	case MissingDefault:
		if forward {
			return "removed, though it had no default,"
		}
		return "added without default"
	case NameMismatch:
		if forward {
			return fmt.Sprintf("renamed from %s to %s, which earlier readers do not know,", before, after)
		}
		return fmt.Sprintf("renamed from %s to %s without an alias", before, after)
	case SizeMismatch:
		return fmt.Sprintf("size changed from %s to %s", before, after)
	case MissingSymbols:
		if forward {
			return fmt.Sprintf("symbols %s added to an enum without default", v.Writer)
		}
		return fmt.Sprintf("symbols %s removed from an enum without default", v.Writer)
	case MissingBranch:
		if forward {
			return fmt.Sprintf("now also %s, which the earlier %s does not take,", v.Writer, v.Reader)
		}
		return fmt.Sprintf("no longer takes %s", v.Writer)
	case BadDefault:
		return fmt.Sprintf("default that does not fit its type (%s)", v.Reader)
	case MeaningDiffers:
		return fmt.Sprintf("meaning changed from %s to %s", before, after)
	default:
		return fmt.Sprintf("type changed from %s to %s", before, after)
	}
}

// Verdict says whether a schema may be the next version of a subject.
type Verdict struct {
	Compatible bool
	Mode       Mode
	Violations []Violation // what was found by rules; may be empty if a server refuses
	Registry   string      // what a server said of it, "" if none was asked
}

// Error explains the verdict, one violation a line. It is nil for a compatible schema.
func (v Verdict) Error() error {
	if v.Compatible {
		return nil
	}
	var b strings.Builder
	for i, x := range v.Violations {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(x.String())
		if v.Mode.Transitive() {
			fmt.Fprintf(&b, " (against version %d)", x.Version)
		}
	}
	if len(v.Violations) == 0 {
		fmt.Fprintf(&b, "the registry refuses it by its rule %s and says: %s", v.Mode, v.Registry)
	}
	return fmt.Errorf("%w: %s", ErrIncompatible, b.String())
}

// Local gives the verdict by rules alone. Versions are the earlier schemas, oldest
// first; one of them again is always compatible, as for a registry.
func Local(mode Mode, next event.Schema, versions []Version, compare Compare) (Verdict, error) {
	v := Verdict{Compatible: true, Mode: mode}
	if known(next, versions) || mode == None {
		return v, nil
	}
	if n := len(versions); n > 0 && !mode.Transitive() {
		versions = versions[n-1:]
	}
	for i := len(versions) - 1; i >= 0; i-- {
		old := versions[i]
		if mode.backward() {
			problems, err := compare(next, old.Schema)
			if err != nil {
				return Verdict{}, fmt.Errorf("against version %d: %w", old.Number, err)
			}
			v.add(Backward, old.Number, problems)
		}
		if mode.forward() {
			problems, err := compare(old.Schema, next)
			if err != nil {
				return Verdict{}, fmt.Errorf("against version %d: %w", old.Number, err)
			}
			v.add(Forward, old.Number, problems)
		}
	}
	return v, nil
}

func known(s event.Schema, versions []Version) bool {
	for _, v := range versions {
		if v.Schema.Format == s.Format && v.Schema.Text == s.Text {
			return true
		}
	}
	return false
}

func (v *Verdict) add(breaks Mode, version int, problems []Problem) {
	for _, p := range problems {
		v.Compatible = false
		v.Violations = append(v.Violations, Violation{Problem: p, Breaks: breaks, Version: version})
	}
}
