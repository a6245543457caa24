package relay

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/jackc/pgx/v5"
)

// lookForParked is called when shards have been taken over, before they are read:
// their former owner may have parked events.
func (s *session) lookForParked(ctx context.Context) error {
	p := s.parking
	p.storing.Lock() // what is being parked counts
	defer p.storing.Unlock()
	op, cancel := s.r.op(ctx)
	defer cancel()
	var any bool
	if err := s.r.pool.QueryRow(op, s.r.q.anyParked, s.name).Scan(&any); err != nil {
		return fmt.Errorf("look for parked events: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.any = p.any || any
	if any {
		p.loaded = false
		p.loads++ // a load under way does not know them
	}
	return nil
}

func (p *parking) hash(l lane) uint64 {
	return maphash.Comparable(p.seed, l)
}

// add notes a parked lane; the caller holds mu.
func (p *parking) add(l lane, room int) {
	if p.full {
		return
	}
	if len(p.keys) >= room {
		p.full, p.keys = true, nil
		return
	}
	p.keys[p.hash(l)] = struct{}{}
}

// suspects returns the lanes of events that may be parked.
func (p *parking) suspects(events []*item) map[lane]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.any || !p.block {
		return nil
	}
	lanes := map[lane]bool{}
	for _, it := range events {
		l := laneOf(&it.msg)
		if l.key == "" {
			continue
		}
		known := !p.loaded || p.full
		if !known {
			_, known = p.keys[p.hash(l)]
		}
		if known {
			lanes[l] = true
		}
	}
	return lanes
}

// load reads the parked lanes. Meanwhile every lane is a suspect, and what is
// parked meanwhile is added.
func (s *session) loadParked(ctx context.Context) error {
	p := s.parking
	p.mu.Lock()
	began := p.loads
	p.mu.Unlock()
	op, cancel := context.WithTimeout(ctx, 8*s.r.tune.opTimeout) // up to a million lanes
	defer cancel()
	rows, err := s.r.pool.Query(op, s.r.q.parkedLanes, s.name)
	if err != nil {
		return fmt.Errorf("load parked keys: %w", err)
	}
	var l lane
	if _, err := pgx.ForEachRow(rows, []any{&l.topic, &l.key}, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.add(l, s.r.tune.park.keys)
		return nil
	}); err != nil {
		return fmt.Errorf("load parked keys: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loaded = p.loads == began
	return nil
}

// queueBehind marks the events whose key has parked ones as blocked and returns
// the others. A lane that has none now gets none but by this session's doing.
func (s *session) queueBehind(events []*item) ([]*item, error) {
	suspects := s.parking.suspects(events)
	if len(suspects) == 0 {
		return events, nil
	}
	var topics, keys []string
	for l := range suspects {
		topics, keys = append(topics, l.topic), append(keys, l.key)
	}
	op, cancel := s.r.op(s.ctx)
	defer cancel()
	rows, err := s.r.pool.Query(op, s.r.q.lanesWith, s.name, topics, keys)
	if err != nil {
		return nil, fmt.Errorf("look up parked keys: %w", err)
	}
	parked := map[lane]bool{}
	var l lane
	if _, err := pgx.ForEachRow(rows, []any{&l.topic, &l.key}, func() error {
		parked[l] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up parked keys: %w", err)
	}
	s.parking.lookedUp(len(suspects) - len(parked))
	var rest []*item
	for _, it := range events {
		if it.msg.Key != "" && parked[laneOf(&it.msg)] {
			it.park = stateBlocked
		} else {
			rest = append(rest, it)
		}
	}
	return rest, nil
}

// lookedUp counts look-ups in vain. Keys are not forgotten one by one, since two may
// share a hash; when too many were in vain all are loaded anew. This runs where
// parking does, so nothing that is being parked is missed.
func (p *parking) lookedUp(inVain int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stale += inVain; p.loaded && p.stale > staleKeys {
		p.stale, p.loaded, p.full, p.keys = 0, false, false, map[uint64]struct{}{}
		p.loads++
	}
}

// staleKeys bounds look-ups in vain until the parked keys are loaded again.
const staleKeys = 100_000
