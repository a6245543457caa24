package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
)

// turn is a set of heads that are published together, with the leases that allow
// it.
type turn struct {
	heads  []parkedHead
	shards []int16
	epochs []int64
}

func newTurn(heads []parkedHead, epochs map[int16]int64) turn {
	t := turn{heads: heads}
	for shard, epoch := range epochs {
		t.shards, t.epochs = append(t.shards, shard), append(t.epochs, epoch)
	}
	return t
}

// publishParked claims the heads and publishes them, then as much of the queue
// behind those that succeeded. A claim is stored before its event is sent: whoever
// wants to discard the event is told so, and what was discarded before is not
// claimed.
func (s *session) publishParked(t turn) (int, error) {
	tune := s.r.tune.park
	ns := make([]int64, len(t.heads))
	lanes := map[int64]lane{} // as parked: the mapping of topics may have changed since
	for i, h := range t.heads {
		if ns[i] = h.n; h.blocks {
			lanes[h.n] = h.lane
		}
	}
	s.parking.claims = ns // whether an answer comes or not
	events, err := s.claim(t, s.r.q.claimHeads, tune.bytes, ns)
	if err != nil {
		return 0, err
	}
	if !s.t.alive() || s.ctx.Err() != nil {
		return 0, errLeaseLost
	}
	s.attempt(events)
	s.learn(events)

	var topics, keys []string
	for _, it := range events {
		if l, blocks := lanes[it.id]; it.done && blocks && s.parking.calm(l.topic) {
			topics, keys = append(topics, l.topic), append(keys, l.key)
		}
	}
	if len(topics) > 0 {
		queue, err := s.claim(t, s.r.q.claimQueue, tune.bytes, topics, keys, tune.rows, 2*tune.rows)
		if err != nil {
			// What is claimed now is not known: the next session's epochs void it.
			defer s.end(err)
		}
		for _, it := range queue {
			s.parking.claims = append(s.parking.claims, it.id)
		}
		if len(queue) > 0 && s.t.alive() {
			s.attempt(queue)
			s.learn(queue)
			events = append(events, queue...)
		}
	}
	return s.resolveParked(t, events)
}

// claim reads events and says in the database that this session publishes them now.
func (s *session) claim(t turn, query string, bytes int64, args ...any) ([]*item, error) {
	op, cancel := s.r.op(s.ctx)
	defer cancel()
	args = append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}, s.name, s.t.name, t.shards, t.epochs, s.t.token, bytes}, args...)
	rows, err := s.r.pool.Query(op, query, args...)
	if err != nil {
		return nil, fmt.Errorf("claim parked events: %w", err)
	}
	defer rows.Close()
	var events []*item
	scan := pageScanner{rows: rows}
	for rows.Next() {
		it, err := scan.next()
		if err != nil {
			return nil, fmt.Errorf("claim parked events: %w", err)
		}
		if !same(scan.token, s.t.token) {
			return nil, errIncarnation
		}
		it.msg.Topic = s.destination(it.msg.Topic)
		events = append(events, it)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("claim parked events: %w", err)
	}
	return events, nil
}

// unclaim gives back the claims of a turn whose outcome could not be stored.
func (s *session) unclaim(ctx context.Context) error {
	if len(s.parking.claims) == 0 {
		return nil
	}
	op, cancel := s.r.op(ctx)
	defer cancel()
	if _, err := s.r.pool.Exec(op, s.r.q.unclaim, s.name, s.t.name, s.parking.claims, s.parking.claims); err != nil {
		return fmt.Errorf("give back claims: %w", err)
	}
	s.parking.claims = nil
	return nil
}

// outcomes is what became of parked events.
type outcomes struct {
	done       []int64 // published
	failed     []int64 // refused, with the reasons
	classes    []string
	reasons    []string
	actions    []int64 // what the heads' last redrive was when they were read; -1: not asked
	unanswered []int64 // may have been published
}

func outcomesOf(t turn, events []*item) outcomes {
	actions := map[int64]int64{}
	for _, h := range t.heads {
		actions[h.n] = h.action
	}
	var o outcomes
	for _, it := range events {
		switch {
		case it.done:
			o.done = append(o.done, it.id)
		case errors.Is(it.failed, brokers.ErrHeld): // was not sent
		case brokers.ClassOf(it.failed) == brokers.ClassUnavailable: // says nothing about the event
			o.unanswered = append(o.unanswered, it.id)
		default:
			action, isHead := actions[it.id]
			if !isHead {
				action = -1
			}
			o.failed, o.actions = append(o.failed, it.id), append(o.actions, action)
			o.classes, o.reasons = append(o.classes, brokers.ClassOf(it.failed).String()), append(o.reasons, reasonText(it.failed))
		}
	}
	return o
}

// resolveParked stores what became of parked events, in one transaction that is
// fenced as a flush is: the published ones go, the failed ones wait, and the next
// of each lane has its turn.
func (s *session) resolveParked(t turn, events []*item) (int, error) {
	o := outcomesOf(t, events)
	var topics, keys []string
	for _, h := range t.heads {
		if h.blocks {
			topics, keys = append(topics, h.lane.topic), append(keys, h.lane.key)
		}
	}
	p := s.r.tune.park
	s.parking.storing.Lock()
	defer s.parking.storing.Unlock()
	err := s.inTx(context.WithoutCancel(s.ctx), func(ctx context.Context, tx pgx.Tx) error {
		if err := s.fence(ctx, tx, t.shards, t.epochs); err != nil {
			return err
		}
		if len(o.done) > 0 {
			if _, err := tx.Exec(ctx, s.r.q.unpark, s.name, o.done); err != nil {
				return err
			}
		}
		if len(o.failed) > 0 {
			if _, err := tx.Exec(ctx, s.r.q.parkAgain, s.name, o.failed, o.classes, o.reasons,
				p.attempts, p.age.Milliseconds(), float64(p.base.Milliseconds()), float64(p.max.Milliseconds()), o.actions); err != nil {
				return err
			}
		}
		if len(s.parking.claims) > len(o.done) {
			if _, err := tx.Exec(ctx, s.r.q.unclaim, s.name, s.t.name, s.parking.claims, o.unanswered); err != nil {
				return err
			}
		}
		if len(topics) > 0 {
			_, err := tx.Exec(ctx, s.r.q.promote, s.name, topics, keys)
			return err
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("store what became of parked events: %w", err)
	}
	s.parking.claims = nil
	return len(o.done), nil
}

// fence locks leases until the transaction ends, or fails if one is not ours.
func (s *session) fence(ctx context.Context, tx pgx.Tx, shards []int16, epochs []int64) error {
	var held int
	if err := tx.QueryRow(ctx, s.r.q.fence, s.name, s.t.name, shards, epochs, s.t.token).Scan(&held); err != nil {
		return err
	}
	if held != len(shards) {
		return fmt.Errorf("%d of %d shards refused: %w", len(shards)-held, len(shards), errLeaseLost)
	}
	return nil
}
