// Package history judges a run: it compares what writers committed with what
// took effect in a consumer's tables. It knows nothing of outboxkit: both sides
// are read with plain SQL, so that a mistake in the product cannot hide itself.
package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Write is one committed write: the N-th of its key. Writers number each key's
// writes from 1 under the key's row lock, so N is the order of their commits.
type Write struct {
	Key string
	N   int64
}

// Effect is what a consumer did for one event, in the order in which its
// transactions did it: Seq grows within a key.
type Effect struct {
	Key string
	N   int64
	Seq int64
}

// Kind says which promise a violation breaks.
type Kind string

// The kinds of violation.
const (
	Loss      Kind = "loss"      // committed, but no effect
	Double    Kind = "double"    // more than one effect of one write
	Phantom   Kind = "phantom"   // an effect of a write that was not committed
	Inversion Kind = "inversion" // an effect before that of an earlier write of its key
)

// Violation is one broken promise, with the shortest story that shows it.
type Violation struct {
	Kind  Kind
	Key   string
	N     int64
	Story string
}

// String is one line for people.
func (v Violation) String() string {
	return fmt.Sprintf("%s of %s#%d: %s", v.Kind, v.Key, v.N, v.Story)
}

// shown is how many violations a report tells: after the first few, the number
// says more than another thousand lines.
const shown = 20

// Report returns the first violations, a line each, and how many there are; ""
// if there are none.
func Report(found []Violation) string {
	if len(found) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d violations", len(found))
	for _, v := range found[:min(shown, len(found))] {
		b.WriteString("\n" + v.String())
	}
	if more := len(found) - shown; more > 0 {
		fmt.Fprintf(&b, "\nand %d more", more)
	}
	return b.String()
}

// Check returns every violation, sorted by key and number; none means that each
// committed write took effect exactly once and in order. The order of the
// slices does not matter.
func Check(written []Write, effects []Effect) []Violation {
	committed := map[Write]bool{}
	for _, w := range written {
		committed[w] = true
	}
	byWrite := map[Write][]Effect{}
	byKey := map[string][]Effect{}
	for _, e := range effects {
		w := Write{e.Key, e.N}
		byWrite[w] = append(byWrite[w], e)
		byKey[e.Key] = append(byKey[e.Key], e)
	}
	var found []Violation
	add := func(kind Kind, w Write, format string, args ...any) {
		found = append(found, violation(kind, w, format, args...))
	}
	for w := range committed {
		if len(byWrite[w]) == 0 {
			add(Loss, w, "committed, and no effect in the consumer's table")
		}
	}
	for w, es := range byWrite {
		if !committed[w] {
			add(Phantom, w, "took effect as number %d, but no such write was committed", es[0].Seq)
		}
		if len(es) > 1 {
			add(Double, w, "took effect %d times, as numbers %s", len(es), seqs(es))
		}
	}
	for _, es := range byKey {
		inversions(es, add)
	}
	slices.SortFunc(found, compareViolations)
	return found
}

func violation(kind Kind, w Write, format string, args ...any) Violation {
	return Violation{kind, w.Key, w.N, fmt.Sprintf(format, args...)}
}

func compareWrites(a, b Write) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(a.N, b.N))
}

func compareViolations(a, b Violation) int {
	return cmp.Or(compareWrites(Write{a.Key, a.N}, Write{b.Key, b.N}), strings.Compare(string(a.Kind), string(b.Kind)))
}

// inversions looks at first effects only: a repeated one is a double already.
func inversions(es []Effect, add func(Kind, Write, string, ...any)) {
	slices.SortFunc(es, func(a, b Effect) int { return int(a.Seq - b.Seq) })
	seen := map[int64]bool{}
	var latest Effect
	for _, e := range es {
		if seen[e.N] {
			continue
		}
		seen[e.N] = true
		if e.N < latest.N {
			add(Inversion, Write{e.Key, e.N}, "took effect as number %d, after #%d did as number %d", e.Seq, latest.N, latest.Seq)
			continue
		}
		latest = e
	}
}

func seqs(es []Effect) string {
	s := make([]string, len(es))
	for i, e := range es {
		s[i] = fmt.Sprint(e.Seq)
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}
