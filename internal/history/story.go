package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// told is how many violations have a story, and others how many faults are in it.
const (
	told   = 5
	others = 6
	most   = 4 // records of one event
)

// line is one thing that was seen.
type line struct {
	at   time.Time
	text string
}

// story tells where the events were seen, in order. Records that repeat are one
// line each up to a few.
func (ix *index) story(f finding) string {
	var lines []line
	seen := map[string]bool{}
	for _, e := range f.events {
		if !seen[e.ID] {
			lines = append(lines, e.lines()...)
		}
		seen[e.ID] = true
	}
	lines = append(lines, ix.faults(lines)...)
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("\n    " + l.at.Format("15:04:05.000") + " " + l.text)
	}
	return b.String()
}

// name is the key, or what there is of an event without one.
func (e *seen) name() string {
	if e.Key == "" {
		return e.ID
	}
	return e.Key
}

// lines are what was seen of an event. What has no time of its own comes after what
// was before it.
func (e *seen) lines() (lines []line) {
	now := e.At
	add := func(at time.Time, format string, args ...any) {
		if !at.IsZero() {
			now = at
		}
		lines = append(lines, line{now, fmt.Sprintf("%s#%d ", e.name(), e.N) + fmt.Sprintf(format, args...)})
	}
	if e.Fate != "" {
		poison := ""
		if e.Poison {
			poison = ", poison"
		}
		add(e.At, "written in slot %d, %s%s (event %s)", e.Slot, e.Fate, poison, e.ID)
	}
	for i, p := range e.published {
		if i == most {
			add(p.At, "published %d times more", len(e.published)-most)
			break
		}
		by := ""
		if p.By != "" {
			by = fmt.Sprintf(", handed over at %s by %s", p.Handed.Format("15:04:05.000"), p.By)
		}
		add(p.At, "published to %s at %d%s", p.Unit, p.Offset, by)
	}
	for _, consumer := range slices.Sorted(maps.Keys(e.effects)) {
		for _, f := range e.effects[consumer] {
			add(f.At, "took effect in %s as number %d", consumer, f.Seq)
		}
	}
	for _, consumer := range slices.Sorted(maps.Keys(e.dead)) {
		for _, d := range e.dead[consumer] {
			add(d.At, "%s %s: %s", d.State, at(consumer), d.Reason)
		}
	}
	return lines
}

// faults are those that fell between the lines, or shortly before.
func (ix *index) faults(lines []line) (fell []line) {
	if len(lines) == 0 {
		return nil
	}
	early := func(a, b line) int { return a.at.Compare(b.at) }
	from, to := slices.MinFunc(lines, early).at.Add(-time.Second), slices.MaxFunc(lines, early).at.Add(time.Second)
	for _, f := range ix.Run.Faults {
		if f.At.After(from) && f.At.Before(to) && len(fell) < others {
			fell = append(fell, line{f.At, "-- " + f.Text})
		}
	}
	return fell
}
