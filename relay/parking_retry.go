package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
)

// retryParked publishes parked events when they are due, beside the log's events
// and in calls of its own, until ctx ends.
func (s *session) retryParked(ctx context.Context) {
	wait := s.r.tune.park.every
	pause := jitter(s.r.tune.retryMax)
	for looks := 0; ; looks++ {
		sleep(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		wait = s.r.tune.park.every
		if looks%200 == 0 {
			s.sweepDiscarded(ctx)
		}
		any, loaded := s.parking.known()
		if !any {
			continue
		}
		if looks%200 == 0 {
			s.hasten(ctx)
		}
		n, err := s.retryOnce(ctx, loaded, looks%20 == 0)
		switch {
		case err == nil:
			pause.Reset()
			if n > 0 {
				wait = 0 // there may be more
			}
		case ctx.Err() != nil:
			return
		case errors.Is(err, errIncarnation), errors.Is(err, errLeaseLost), misuse(err):
			s.end(err)
			return
		default:
			s.stats.failed(err)
			s.log.Warn("relay: retrying parked events failed", "error", err)
			wait = max(wait, pause.NextBackOff())
		}
	}
}

func (p *parking) known() (any, loaded bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.any, p.loaded
}

// retryOnce publishes the due heads, and behind those that succeed what waits for
// them. It returns the number of events that were published.
func (s *session) retryOnce(ctx context.Context, loaded, sweep bool) (int, error) {
	if !loaded {
		if err := s.loadParked(ctx); err != nil {
			return 0, err
		}
	}
	heads, err := s.dueHeads(ctx)
	if err != nil {
		return 0, err
	}
	if len(heads) == 0 {
		if sweep {
			return 0, s.sweepParked(ctx)
		}
		return 0, nil
	}
	heads = s.allowed(heads)
	if len(heads) == 0 {
		return 0, nil
	}
	defer s.parking.spare(heads) // probes that were not used
	want := map[int16]bool{}
	for _, h := range heads {
		want[h.shard] = true
	}
	epochs := s.progress.hold(want)
	defer s.progress.let(epochs)
	heads = slices.DeleteFunc(slices.Clone(heads), func(h parkedHead) bool { _, ours := epochs[h.shard]; return !ours })
	if len(heads) == 0 {
		return 0, nil
	}
	s.parking.takeOff(heads)
	defer s.parking.land(heads)
	return s.publishParked(heads, epochs)
}

func (p *parking) spare(heads []parkedHead) {
	p.broker.spared()
	for _, h := range heads {
		if c := p.topics.get(h.lane.topic); c != nil {
			c.spared()
		}
	}
}

// calm tells whether whole queues may be sent to a topic.
func (p *parking) calm(topic string) bool {
	state, _, _ := p.broker.look()
	return state == circuitClosed && p.topics.get(topic) == nil
}

// parkedHead is the first parked event of its lane.
type parkedHead struct {
	n        int64
	lane     lane
	shard    int16
	blocks   bool
	attempts int
}

func (s *session) dueHeads(ctx context.Context) ([]parkedHead, error) {
	op, cancel := s.r.op(ctx)
	defer cancel()
	rows, err := s.r.pool.Query(op, s.r.q.dueHeads, s.name, s.progress.staying(), s.parking.topics.shut(), s.r.tune.park.rows)
	if err != nil {
		return nil, fmt.Errorf("look for due events: %w", err)
	}
	heads, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h parkedHead, err error) {
		err = row.Scan(&h.n, &h.lane.topic, &h.lane.key, &h.shard, &h.blocks, &h.attempts)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for due events: %w", err)
	}
	return heads, nil
}

// allowed leaves what circuits and budget let through. A lane is never in the list
// twice: only its head is retried.
func (s *session) allowed(heads []parkedHead) []parkedHead {
	p := s.parking
	n, _ := p.broker.acquire(len(heads))
	if n == 0 {
		return nil
	}
	probes := make([]*item, len(heads))
	again := 0
	for i, h := range heads {
		probes[i] = &item{msg: brokers.Message{Topic: h.lane.topic}}
		if h.attempts > 0 {
			again++
		}
	}
	retries := p.budget.spend(again)
	grants := p.topics.grants(probes)
	var list []parkedHead
	for _, h := range heads {
		grant, troubled := grants[h.lane.topic]
		if len(list) == n || troubled && grant.n == 0 || h.attempts > 0 && retries == 0 {
			continue
		}
		if troubled {
			grant.n--
			grant.sent++
		}
		if h.attempts > 0 {
			retries--
		}
		list = append(list, h)
	}
	if len(list) == 0 {
		p.broker.spared()
	}
	for _, g := range grants {
		if g.sent == 0 {
			g.circuit.spared()
		}
	}
	return list
}

// takeOff makes the lanes count as parked until land, whatever becomes of their
// rows meanwhile.
func (p *parking) takeOff(heads []parkedHead) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range heads {
		if h.blocks {
			p.flight[h.lane] = true
		}
	}
}

func (p *parking) land(heads []parkedHead) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range heads {
		delete(p.flight, h.lane)
	}
}

// publishParked reads the events anew, after takeOff: one that was discarded before
// is not published any more.
func (s *session) publishParked(heads []parkedHead, epochs map[int16]int64) (int, error) {
	t := s.r.tune.park
	ns := make([]int64, len(heads))
	lanes := map[int64]lane{} // as parked: the mapping of topics may have changed since
	for i, h := range heads {
		if ns[i] = h.n; h.blocks {
			lanes[h.n] = h.lane
		}
	}
	events, err := s.readParked(s.r.q.parkedEvents, s.name, ns, t.bytes)
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
	if len(topics) > 0 && s.t.alive() {
		queue, err := s.readParked(s.r.q.followers, s.name, topics, keys, t.rows, 2*t.rows, t.bytes)
		if err != nil {
			s.log.Warn("relay: reading the queue behind parked events failed", "error", err)
		} else if len(queue) > 0 {
			s.attempt(queue)
			s.learn(queue)
			events = append(events, queue...)
		}
	}
	return s.resolveParked(heads, events, epochs)
}

func (s *session) readParked(query string, args ...any) ([]*item, error) {
	op, cancel := s.r.op(s.ctx)
	defer cancel()
	rows, err := s.r.pool.Query(op, query, append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read parked events: %w", err)
	}
	defer rows.Close()
	var events []*item
	scan := pageScanner{rows: rows}
	for rows.Next() {
		it, err := scan.next()
		if err != nil {
			return nil, fmt.Errorf("read parked events: %w", err)
		}
		if !same(scan.token, s.t.token) {
			return nil, errIncarnation
		}
		it.msg.Topic = s.destination(it.msg.Topic)
		events = append(events, it)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read parked events: %w", err)
	}
	return events, nil
}

// resolveParked stores what became of parked events, in one transaction that is
// fenced as a flush is: the published ones go, the failed ones wait, and the next
// of each lane has its turn.
func (s *session) resolveParked(heads []parkedHead, events []*item, epochs map[int16]int64) (int, error) {
	var done, failed []int64
	var classes, reasons []string
	for _, it := range events {
		switch {
		case it.done:
			done = append(done, it.id)
		case errors.Is(it.failed, brokers.ErrHeld), brokers.ClassOf(it.failed) == brokers.ClassUnavailable:
			// Says nothing about the event.
		default:
			failed = append(failed, it.id)
			classes, reasons = append(classes, brokers.ClassOf(it.failed).String()), append(reasons, reasonText(it.failed))
		}
	}
	if len(done)+len(failed) == 0 {
		return 0, nil
	}
	var shards []int16
	var expected []int64
	var topics, keys []string
	seen := map[int16]bool{}
	for _, h := range heads {
		if !seen[h.shard] {
			seen[h.shard] = true
			shards, expected = append(shards, h.shard), append(expected, epochs[h.shard])
		}
		if h.blocks {
			topics, keys = append(topics, h.lane.topic), append(keys, h.lane.key)
		}
	}
	t := s.r.tune.park
	s.parking.storing.Lock()
	defer s.parking.storing.Unlock()
	err := s.inTx(context.WithoutCancel(s.ctx), func(ctx context.Context, tx pgx.Tx) error {
		if err := s.fence(ctx, tx, shards, expected); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.r.q.unpark, s.name, done); err != nil {
			return err
		}
		if len(failed) > 0 {
			if _, err := tx.Exec(ctx, s.r.q.parkAgain, s.name, failed, classes, reasons,
				t.attempts, t.age.Milliseconds(), float64(t.base.Milliseconds()), float64(t.max.Milliseconds())); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, s.r.q.promote, s.name, topics, keys)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("store what became of parked events: %w", err)
	}
	return len(done), nil
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
