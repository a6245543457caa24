package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// step is one fault of the plan.
type step struct {
	At     time.Duration // since the first processes worked
	Kind   string
	Target string        // process, cluster, link, broker
	For    time.Duration // until it is healed
	Amount int           // by kind: milliseconds, bytes, seconds
	Side   string        // by kind: direction of a stream, broker
}

func (s step) String() string {
	text := s.Kind + " " + s.Target
	if s.For > 0 {
		text += fmt.Sprintf(" for %.1f s", s.For.Seconds())
	}
	return text
}

const (
	settle  = 4 * time.Second // before the first fault
	minGap  = 600 * time.Millisecond
	maxGap  = 2600 * time.Millisecond
	clashes = 20 // draws until a card is put back because its target is busy
)

// plan draws what happens in a run: the kinds come like cards of a pack that is
// shuffled anew when it is used up, so that a short run has seen each of them. It
// depends on nothing but its arguments.
func plan(seed uint64, duration time.Duration, only []string) []step {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := &planner{rng: rng, busy: map[string]time.Duration{}, pairs: map[string][]string{}}
	all := cards()
	var steps []step
	var pack []card
	for at := settle; at < duration; {
		if len(pack) == 0 {
			pack = newPack(rng, all, only)
		}
		s, i := p.next(pack, at)
		if i < 0 {
			at += minGap
			continue
		}
		pack = slices.Delete(pack, i, i+1)
		if s.At+s.For > duration {
			if len(steps) > 0 {
				continue // too long for what is left
			}
			s.For = max(duration-s.At, time.Second) // a run that short has one fault
		}
		steps = append(steps, s)
		at += minGap + time.Duration(rng.Int64N(int64(maxGap-minGap)))
		if only != nil { // one after the other, with time to work between
			at = max(at, s.At+s.For+5*time.Second)
		}
	}
	return steps
}

func newPack(rng *rand.Rand, all []card, only []string) []card {
	var pack []card
	for _, c := range all {
		if only != nil && !slices.Contains(only, c.kind) {
			continue
		}
		for range c.often {
			pack = append(pack, c)
		}
	}
	rng.Shuffle(len(pack), func(i, j int) { pack[i], pack[j] = pack[j], pack[i] })
	return pack
}

// planner remembers until when each target is taken.
type planner struct {
	rng   *rand.Rand
	busy  map[string]time.Duration
	pairs map[string][]string // links by kind of fault, in the order in which they come
}

// next draws the first card that has a free target and returns its place, -1 if
// none has.
func (p *planner) next(pack []card, at time.Duration) (step, int) {
	for i, c := range pack {
		if s, ok := p.draw(c, at); ok {
			return s, i
		}
	}
	return step{}, -1
}

// draw turns a card into a step, if one of its targets is free.
func (p *planner) draw(c card, at time.Duration) (step, bool) {
	for range clashes {
		s := step{At: at, Kind: c.kind, For: p.between(c.shortest, c.longest)}
		var takes []string
		s.Target, takes = c.target(p)
		if c.amount[1] > 0 {
			s.Amount = c.amount[0] + p.rng.IntN(c.amount[1]-c.amount[0])
		}
		if p.rng.IntN(2) == 0 {
			s.Side = "upstream"
		} else {
			s.Side = "downstream"
		}
		if slices.ContainsFunc(takes, func(t string) bool { return p.busy[t] > at }) {
			continue
		}
		for _, t := range takes {
			p.busy[t] = at + s.For + c.after
		}
		return s, true
	}
	return step{}, false
}

func (p *planner) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(p.rng.Int64N(int64(b-a)))
}

func (p *planner) one(of []string) string { return of[p.rng.IntN(len(of))] }

// pair is a link of a pair of kinds, for example of relays and Kafka; each pair has
// its turn.
func (p *planner) pair(kind string) string {
	if len(p.pairs[kind]) == 0 {
		for _, process := range []string{"service", "relay", "consumer"} {
			for _, server := range serversOf[process] {
				p.pairs[kind] = append(p.pairs[kind], linkName(process, server))
			}
		}
		p.rng.Shuffle(len(p.pairs[kind]), func(i, j int) {
			p.pairs[kind][i], p.pairs[kind][j] = p.pairs[kind][j], p.pairs[kind][i]
		})
	}
	pair := p.pairs[kind][0]
	p.pairs[kind] = p.pairs[kind][1:]
	return pair
}
