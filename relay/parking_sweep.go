package relay

import (
	"context"
	"fmt"
)

// hasten makes events due that a clock set back has put off.
func (s *session) hasten(ctx context.Context) {
	op, cancel := s.r.op(ctx)
	defer cancel()
	if _, err := s.r.pool.Exec(op, s.r.q.hasten, s.name, s.r.tune.park.max.Milliseconds()); err != nil && ctx.Err() == nil {
		s.log.Warn("relay: hastening parked events failed", "error", err)
	}
}

// sweepDiscarded deletes discarded events that are older than the retention.
func (s *session) sweepDiscarded(ctx context.Context) {
	op, cancel := s.r.op(ctx)
	defer cancel()
	if _, err := s.r.pool.Exec(op, s.r.q.sweepDiscarded, s.r.cfg.Retention.Milliseconds()); err != nil && ctx.Err() == nil {
		s.log.Warn("relay: deleting old discarded events failed", "error", err)
	}
}

// sweepParked looks after what no attempt touches: events that waited too long for
// their topic, and whether anything is left at all.
func (s *session) sweepParked(ctx context.Context) error {
	op, cancel := s.r.op(ctx)
	defer cancel()
	if shut := s.parking.topics.shut(); len(shut) > 0 {
		if _, err := s.r.pool.Exec(op, s.r.q.expireParked, s.name, shut, s.progress.staying(), s.r.tune.park.age.Milliseconds()); err != nil {
			return fmt.Errorf("expire parked events: %w", err)
		}
	}
	p := s.parking
	p.storing.Lock()
	defer p.storing.Unlock()
	var any bool
	if err := s.r.pool.QueryRow(op, s.r.q.anyParked, s.name).Scan(&any); err != nil || any {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.any, p.loaded, p.full, p.stale, p.keys = false, true, false, 0, map[uint64]struct{}{}
	return nil
}
