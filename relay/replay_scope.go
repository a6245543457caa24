package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// replayScope is what a replay may publish. It is stored, so that a replay that is
// resumed goes on with the same events.
type replayScope struct {
	filter   replayFilter
	bound    []replayBound
	marks    []slotMark
	first    int64 // the cursor's start
	last     int64 // the cursor's end
	pipeline string
	to       string
}

// replayFilter is the caller's filter and the pipeline's.
type replayFilter struct {
	ReplayFilter
	PipelineTypes  []string `json:"pipelineTypes,omitempty"`
	PipelineTopics []string `json:"pipelineTopics,omitempty"`
}

// replayBound is what of some shards had been passed when the replay began: rows
// with id <= H visible in S, and, in a batch under way, with id <= C visible in S2.
type replayBound struct {
	Shards []int16 `json:"shards"`
	S      string  `json:"s"`
	H      int64   `json:"h"`
	S2     string  `json:"s2,omitempty"`
	C      int64   `json:"c,omitempty"`
}

// slotMark is the part of a replay that lies in one slot.
type slotMark struct {
	Slot  int16     `json:"slot"`
	First int64     `json:"first"` // log id
	Event string    `json:"event"` // event_id of the first: log ids may be used again after a failover
	From  time.Time `json:"from"`
	Last  int64     `json:"last"`
	Until time.Time `json:"until"`
}

// plan finds what may be published. The marks are read after the bounds: what is
// truncated in between is not part of the replay.
func (r *replayer) plan(ctx context.Context) error {
	op, cancel := r.relay.op(ctx)
	defer cancel()
	s := replayScope{pipeline: r.cfg.Pipeline.Name, to: r.to.Name, filter: replayFilter{
		ReplayFilter: r.cfg.Where, PipelineTypes: r.cfg.Pipeline.Filter.Types, PipelineTopics: r.cfg.Pipeline.Filter.Topics,
	}}
	var known bool
	if err := r.relay.pool.QueryRow(op, r.sql(sqlReplayRegistered), s.to).Scan(&known); err != nil {
		return err
	}
	var err error
	if known {
		s.bound, err = r.passed(op)
	} else {
		var p probe
		p, err = takeProbe(op, r.relay.pool, r.relay.q.probe, r.token)
		if err == nil {
			s.bound = []replayBound{{Shards: everyShard(), S: p.s.text, H: p.h}}
		}
	}
	if err != nil {
		return err
	}
	var upper int64
	for _, b := range s.bound {
		upper = max(upper, b.H, b.C)
	}
	if s.marks, err = r.marks(op, upper); err != nil {
		return err
	}
	for i, m := range s.marks {
		if i == 0 || m.First <= s.first {
			s.first = m.First - 1
		}
		s.last = max(s.last, min(m.Last, upper))
	}
	r.scope, r.cursor = s, s.first
	return nil
}

func everyShard() []int16 {
	list := make([]int16, shardCount)
	for i := range list {
		list[i] = int16(i)
	}
	return list
}

// passed reads the destination's position, shards with equal ones together. A shard
// without one has passed nothing.
func (r *replayer) passed(ctx context.Context) ([]replayBound, error) {
	rows, err := r.relay.pool.Query(ctx, r.relay.q.load, r.to.Name, everyShard())
	if err != nil {
		return nil, fmt.Errorf("read position: %w", err)
	}
	type at struct {
		s, s2 string
		h, c  int64
	}
	groups := map[at][]int16{}
	var shard int16
	var p at
	var h2 int64
	var b, b2 string
	var tok token
	_, err = pgx.ForEachRow(rows, []any{&shard, &p.s, &p.h, &b, &p.s2, &h2, &b2, &p.c, &tok}, func() error {
		if !same(tok, r.token) {
			return errIncarnation
		}
		p.c = min(p.c, h2)
		groups[p] = append(groups[p], shard)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read position: %w", err)
	}
	var list []replayBound
	for p, shards := range groups {
		list = append(list, replayBound{Shards: shards, S: p.s, H: p.h, S2: p.s2, C: p.c})
	}
	return list, nil
}

func (r *replayer) marks(ctx context.Context, upper int64) ([]slotMark, error) {
	rows, err := r.relay.pool.Query(ctx, r.slotQuery())
	if err != nil {
		return nil, fmt.Errorf("read slots: %w", err)
	}
	var list []slotMark
	var m slotMark
	_, err = pgx.ForEachRow(rows, []any{&m.Slot, &m.First, &m.Event, &m.From, &m.Last, &m.Until}, func() error {
		if r.oldest.IsZero() || m.From.Before(r.oldest) {
			r.oldest = m.From
		}
		if m.First <= upper { // otherwise nothing in it is of this replay
			list = append(list, m)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read slots: %w", err)
	}
	return list, nil
}

// args are those of replayWhere.
func (s *replayScope) args(after, upTo int64) []any {
	group := make([]int32, shardCount) // 0 is outside of the arrays: NULL, nothing
	var seen, seen2 []string
	var h, c []int64
	for i, b := range s.bound {
		for _, shard := range b.Shards {
			group[shard] = int32(i + 1) //nolint:gosec // at most 64
		}
		if b.S2 == "" {
			b.S2 = b.S
		}
		seen, seen2, h, c = append(seen, b.S), append(seen2, b.S2), append(h, b.H), append(c, b.C)
	}
	f := s.filter
	return []any{
		after, upTo, pgTimeOrNull(f.From), pgTimeOrNull(f.Until), f.Keys, f.Types, f.Topics, f.PipelineTypes, f.PipelineTopics,
		group, seen, h, seen2, c, s.to,
	}
}

func pgTimeOrNull(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}

// gone reports the slots that are not what they were, as far as the part after the
// cursor is concerned.
func (r *replayer) gone(ctx context.Context, tx pgx.Tx, after int64) error {
	var numbers []int16
	var ids []int64
	var events []string
	for _, m := range r.scope.marks {
		if m.Last > after {
			numbers, ids, events = append(numbers, m.Slot), append(ids, m.First), append(events, m.Event)
		}
	}
	var lost []int16
	var tok token
	if err := tx.QueryRow(ctx, r.sql(sqlReplayGone), numbers, ids, events).Scan(&lost, &tok); err != nil {
		return fmt.Errorf("check slots: %w", err)
	}
	if !same(tok, r.token) {
		return errIncarnation
	}
	var e TruncatedError
	for _, n := range lost {
		for _, m := range r.scope.marks {
			if m.Slot == n {
				e.Parts = append(e.Parts, TruncatedPart{Slot: int(n), FirstID: max(m.First, after+1),
					LastID: min(m.Last, r.scope.last), From: m.From, Until: m.Until})
			}
		}
	}
	if len(e.Parts) > 0 {
		return &e
	}
	return nil
}
