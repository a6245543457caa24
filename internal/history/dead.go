package history

import (
	"maps"
	"slices"
)

// CheckWithDead is [Check] for a consumer that may also make a write a dead
// letter: each committed write took effect exactly once or is a dead letter once,
// never both. Effects are in order per key. If blocking, no write took effect
// after an earlier one of its key had died and not been dealt with.
func CheckWithDead(written []Write, effects []Effect, dead []Write, blocking bool) []Violation {
	committed, died := map[Write]bool{}, map[Write]int{}
	for _, w := range written {
		committed[w] = true
	}
	for _, d := range dead {
		died[d]++
	}
	// To Check, a dead letter is a write that was none: it must not have an effect,
	// and need not.
	alive := slices.DeleteFunc(slices.Clone(written), func(w Write) bool { return died[w] > 0 })
	found := Check(alive, effects)
	for i, v := range found {
		if v.Kind == Phantom && died[Write{v.Key, v.N}] > 0 {
			found[i].Story = "took effect, and is a dead letter too"
		}
	}
	first := map[string]int64{} // the first dead letter of a key
	for _, d := range slices.SortedFunc(maps.Keys(died), compareWrites) {
		if _, ok := first[d.Key]; !ok {
			first[d.Key] = d.N
		}
		if !committed[d] {
			found = append(found, violation(Phantom, d, "is a dead letter, but no such write was committed"))
		}
		if n := died[d]; n > 1 {
			found = append(found, violation(Double, d, "is %d dead letters", n))
		}
	}
	if blocking {
		found = append(found, overtakers(effects, first)...)
	}
	slices.SortFunc(found, compareViolations)
	return found
}

// overtakers are the effects behind the first dead letter of their key.
func overtakers(effects []Effect, first map[string]int64) (found []Violation) {
	for _, e := range effects {
		if n, ok := first[e.Key]; ok && e.N > n {
			found = append(found, violation(Inversion, Write{e.Key, e.N}, "took effect, though #%d before it is a dead letter", n))
		}
	}
	return found
}
