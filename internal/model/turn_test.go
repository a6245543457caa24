package model

import (
	"cmp"
	"fmt"
	"slices"
)

// turn is one attempt with the parked events of a lane: the head, and when that has
// been published the one behind it.
type turn struct {
	work    *work
	rows    []*ParkedRow
	results []Result // of those that have been sent; "" = under way
}

// parkedIn lists a pipeline's parked events in the order of parking.
func (x *explorer) parkedIn(pipeline string) (list []*ParkedRow) {
	for k := range keyCount {
		list = append(list, x.parked[lane{pipeline, keyName(k)}]...)
	}
	slices.SortFunc(list, func(a, b *ParkedRow) int { return cmp.Compare(a.N, b.N) })
	return list
}

func keyName(k int) string { return fmt.Sprintf("k%d", k) }

// heads are parked events of the relay's shards that may be tried.
func (x *explorer) heads(r *relay) (list []*ParkedRow) {
	for _, row := range x.parkedIn(r.pipeline) {
		if wk := r.shards[x.log[row.Name].Shard]; wk != nil && (row.State == Retrying || row.State == Blocked && x.is(tryBlocked)) {
			list = append(list, row)
		}
	}
	return list
}

// claim says in the database that an event is being published now, before it is.
func (x *explorer) claim(r *relay, wk *work, row *ParkedRow) bool {
	if x.leases[wk.Part] != wk.lease || row.State == Discarded || !slices.Contains(x.parkedIn(r.pipeline), row) {
		return false
	}
	if !x.is(noClaim) {
		x.do(Change{r.pipeline, row.N, row.State, wk.lease.Epoch, row.Unanswered || row.Claim != 0})
	}
	return true
}

func (x *explorer) beginTurn(r *relay, row *ParkedRow) {
	wk := r.shards[x.log[row.Name].Shard]
	if !x.claim(r, wk, row) {
		return
	}
	r.turn = &turn{work: wk}
	r.turn.rows = append(r.turn.rows, row)
}

// inTurn: what was claimed is sent, then the next in the lane, then it is settled.
func (x *explorer) inTurn(r *relay) []func() {
	t := r.turn
	if r.shards[t.work.Shard] != t.work {
		return []func(){func() { r.turn = nil }} // the lease is another's
	}
	if len(t.results) < len(t.rows) {
		return []func(){func() { x.try(r, t) }}
	}
	last := t.results[len(t.results)-1]
	if last == "" {
		return nil // waits for the answer
	}
	list := []func(){func() { x.settleTurn(r, t) }}
	if queue := x.lane(lane{r.pipeline, x.keyOf(t.rows[0].Name)}); len(t.rows) == 1 && len(queue) > 1 && (last == Confirmed || x.is(queueAfterFailure)) {
		list = append(list, func() {
			if x.claim(r, t.work, queue[1]) {
				t.rows = append(t.rows, queue[1])
			}
		})
	}
	return list
}

func (x *explorer) try(r *relay, t *turn) {
	i := len(t.results)
	t.results = append(t.results, "")
	x.publish(r, []string{t.rows[i].Name}, func(_ string, result Result) { t.results[i] = result })
}

// settleTurn stores what became of a turn, in one transaction under the lease: the
// published ones go, the failed one waits, the next of the lane has its turn.
func (x *explorer) settleTurn(r *relay, t *turn) {
	r.turn = nil
	if !x.fenced(t.work.Part, t.work.lease) {
		r.shards[t.work.Shard] = nil
		return
	}
	steps := Tx{}
	left := slices.Clone(x.lane(lane{r.pipeline, x.keyOf(t.rows[0].Name)}))
	for i, row := range t.rows {
		if !slices.Contains(x.parkedIn(r.pipeline), row) || row.State == Discarded {
			continue
		}
		switch t.results[i] {
		case Confirmed:
			steps = append(steps, Unpark{r.pipeline, row.N})
			left = slices.DeleteFunc(left, func(o *ParkedRow) bool { return o == row })
		case Refused:
			state := Dead
			if x.chance(2) && !x.quiet {
				state = Retrying
			}
			steps = append(steps, Change{r.pipeline, row.N, state, 0, row.Unanswered})
		default:
			steps = append(steps, Change{r.pipeline, row.N, row.State, 0, true})
		}
	}
	x.do(append(steps, x.promoted(r.pipeline, left, steps)...))
}

// promoted gives the head of a lane its turn, if it was blocked.
func (x *explorer) promoted(pipeline string, left []*ParkedRow, done Tx) Tx {
	if len(left) == 0 || left[0].State != Blocked {
		return nil
	}
	head := *left[0]
	for _, s := range done {
		if c, ok := s.(Change); ok && c.N == head.N {
			head.State, head.Claim, head.Unanswered = c.State, c.Claim, c.Unanswered
		}
	}
	if head.State != Blocked {
		return nil
	}
	return Tx{Change{pipeline, head.N, Retrying, head.Claim, head.Unanswered}}
}

func (x *explorer) redrive(pipeline string, row *ParkedRow) {
	if row.State == Dead {
		x.do(Change{pipeline, row.N, Retrying, row.Claim, row.Unanswered})
	}
}

// discard leaves an event alone that a living relay is publishing.
func (x *explorer) discard(pipeline string, row *ParkedRow) {
	l := x.leases[Part{pipeline, x.log[row.Name].Shard}]
	if row.Claim != 0 && row.Claim == l.Epoch && x.instances[l.Owner] && !x.is(discardClaimed) {
		return
	}
	left := slices.DeleteFunc(x.lane(lane{pipeline, x.keyOf(row.Name)}), func(o *ParkedRow) bool { return o == row })
	steps := Tx{Change{pipeline, row.N, Discarded, 0, row.Unanswered || row.Claim != 0}}
	x.do(append(steps, x.promoted(pipeline, left, nil)...))
}
