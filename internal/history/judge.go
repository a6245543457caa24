package history

import (
	"cmp"
	"fmt"
	"slices"
)

// Judge returns every broken promise, in the order of writing. The first ones have
// the story of the events concerned.
func (r *Run) Judge() []Violation {
	ix := newIndex(r)
	for _, e := range ix.order {
		ix.fate(e)
		for _, c := range r.Consumers {
			ix.effect(e, c)
		}
	}
	for _, events := range ix.keys() {
		ix.publications(events)
		ix.publishers(events)
		ix.deaths(events, "")
		for _, c := range r.Consumers {
			ix.effects(events, c)
			ix.deaths(events, c)
		}
	}
	slices.SortFunc(ix.found, func(a, b finding) int {
		v, w := a.events[0], b.events[0]
		return cmp.Or(v.At.Compare(w.At), cmp.Compare(v.Key, w.Key), cmp.Compare(v.N, w.N), cmp.Compare(a.kind, b.kind), cmp.Compare(a.text, b.text))
	})
	var violations []Violation
	for i, f := range ix.found {
		v := violation(f.kind, Write{f.events[0].name(), f.events[0].N}, "%s", f.text)
		if i < told {
			v.Story += ix.story(f)
		}
		violations = append(violations, v)
	}
	return violations
}

// fate looks at what must be in the log, and what must not be anywhere.
func (ix *index) fate(e *seen) {
	switch e.Fate {
	case Committed:
		if len(e.published) == 0 && len(e.dead[""]) == 0 {
			ix.add(Loss, "committed, and never published", e)
		}
	case Forgotten, Injected:
	case RolledBack:
		if len(e.published) > 0 {
			ix.add(Phantom, "rolled back, and published", e)
		}
	default:
		if len(e.published) > 0 || len(e.effects) > 0 || len(e.dead) > 0 {
			ix.add(Phantom, "nobody wrote it", e)
		}
		return
	}
	if e.Poison || e.Key != "" && e.Fate == Committed { // those are looked at in their order
		return
	}
	for consumer, dead := range e.dead {
		if _, behind := ix.poison[[2]string{e.Key, consumer}]; !behind || e.Key == "" || ix.Passing {
			ix.add(Unexplained, "died "+at(consumer)+": "+dead[0].Reason, e)
		}
	}
}

// effect looks at what one consumer made of an event.
func (ix *index) effect(e *seen, consumer string) {
	effects, dead := e.effects[consumer], e.dead[consumer]
	if len(effects) > 1 {
		ix.add(Double, fmt.Sprintf("took effect %d times in %s", len(effects), consumer), e)
	}
	if len(dead) > 1 {
		ix.add(Double, fmt.Sprintf("is %d dead letters of %s", len(dead), consumer), e)
	}
	switch {
	case len(effects) > 0 && (e.Fate == RolledBack || e.Fate == Injected):
		ix.add(Phantom, fmt.Sprintf("%s, and took effect in %s", e.Fate, consumer), e)
	case len(effects) > 0 && len(dead) > 0:
		ix.add(Phantom, "took effect in "+consumer+", and is a dead letter too", e)
	case e.Fate == Committed && len(e.published) > 0 && len(effects)+len(dead)+len(e.dead[""]) == 0:
		ix.add(Loss, "published, and no effect in "+consumer, e)
	}
}

// publications looks at a key's first records in each partition or queue.
func (ix *index) publications(events []*seen) {
	firsts := map[string][]*seen{}
	for _, e := range events { // in the order of writing
		unit := ""
		for _, p := range e.published {
			if p.Unit != unit { // its first record there
				unit = p.Unit
				firsts[unit] = append(firsts[unit], e)
			}
		}
	}
	first := func(e *seen, unit string) int64 {
		i := slices.IndexFunc(e.published, func(p *Published) bool { return p.Unit == unit })
		return e.published[i].Offset
	}
	for unit, events := range firsts {
		for i := 1; i < len(events); i++ {
			if before, e := events[i-1], events[i]; first(e, unit) < first(before, unit) {
				ix.add(Inversion, fmt.Sprintf("first published after #%d", e.N), before, e)
			}
		}
	}
	ix.passed(events, "", func(e *seen) bool { return len(e.published) > 0 })
}

// effects looks at the order of a key's first effects in a consumer.
func (ix *index) effects(events []*seen, consumer string) {
	var before *seen
	for _, e := range events {
		if len(e.effects[consumer]) == 0 {
			continue
		}
		if before != nil && firstSeq(e.effects[consumer]) < firstSeq(before.effects[consumer]) {
			ix.add(Inversion, fmt.Sprintf("took effect in %s after #%d", consumer, e.N), before, e)
		}
		before = e
	}
	ix.passed(events, consumer, func(e *seen) bool { return len(e.effects[consumer]) > 0 })
}

func firstSeq(effects []*Effected) int64 {
	return slices.MinFunc(effects, func(a, b *Effected) int { return cmp.Compare(a.Seq, b.Seq) }).Seq
}

// passed looks for events that went past a dead letter of their key. One story
// will do.
func (ix *index) passed(events []*seen, consumer string, gone func(*seen) bool) {
	var dead *seen
	for _, e := range events {
		switch {
		case ix.Passing:
		case dead != nil && gone(e):
			ix.add(Inversion, fmt.Sprintf("went past #%d, which is dead %s", dead.N, at(consumer)), e, dead)
			return
		case dead == nil && len(e.dead[consumer]) > 0:
			dead = e
		}
	}
}

// deaths looks for the first dead letter of a key, which must be poison; later ones
// stand behind it.
func (ix *index) deaths(events []*seen, consumer string) {
	if e := events[0]; ix.poison[[2]string{e.Key, consumer}] && !ix.Passing {
		return // they may stand behind one that is not among them
	}
	for _, e := range events {
		dead := e.dead[consumer]
		if len(dead) > 0 && !e.Poison {
			ix.add(Unexplained, "died "+at(consumer)+": "+dead[0].Reason, e)
		}
		if len(dead) > 0 && !ix.Passing {
			return
		}
	}
}

// publishers looks whether a key went from relay to relay more often than it can
// have: then two published it at a time. In the order of handing over: what a frozen
// relay had handed over before may arrive later.
func (ix *index) publishers(events []*seen) {
	if ix.Takeovers == 0 {
		return
	}
	type handed struct {
		*Published
		of *seen
	}
	var all []handed
	for _, e := range events {
		for _, p := range e.published {
			if p.By != "" {
				all = append(all, handed{p, e})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b handed) int { return a.Handed.Compare(b.Handed) })
	changes := 0
	var last [2]*seen
	for i := 1; i < len(all); i++ {
		if all[i].By == all[i-1].By {
			continue
		}
		if changes++; changes == ix.Takeovers+1 {
			last = [2]*seen{all[i].of, all[i-1].of}
		}
	}
	if changes > ix.Takeovers {
		ix.add(Overlap, fmt.Sprintf("its key went from relay to relay %d times, and its lease can have gone %d times", changes, ix.Takeovers), last[0], last[1])
	}
}

func at(consumer string) string {
	if consumer == "" {
		return "in the relay"
	}
	return "in " + consumer
}
