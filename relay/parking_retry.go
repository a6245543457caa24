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
	if err := s.unclaim(ctx); err != nil {
		return 0, err
	}
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
	return s.publishParked(newTurn(heads, epochs))
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
	action   int64 // the last redrive; 0 = none
}

func (s *session) dueHeads(ctx context.Context) ([]parkedHead, error) {
	op, cancel := s.r.op(ctx)
	defer cancel()
	rows, err := s.r.pool.Query(op, s.r.q.dueHeads, s.name, s.progress.staying(), s.parking.topics.shut(), s.r.tune.park.rows)
	if err != nil {
		return nil, fmt.Errorf("look for due events: %w", err)
	}
	heads, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h parkedHead, err error) {
		err = row.Scan(&h.n, &h.lane.topic, &h.lane.key, &h.shard, &h.blocks, &h.attempts, &h.action)
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
