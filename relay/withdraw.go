package relay

import (
	"context"
	"sync"
	"time"
)

// health notices an engine that holds shards and cannot publish them, while its
// process is well and its heartbeat goes on: others would wait for ever for its
// share.
type health struct {
	mu         sync.Mutex
	moved      map[int16]time.Time // when each shard last advanced, over nothing too
	struggling time.Time           // since when no shards can be held; zero = they can
	out        bool                // withdrawn
	pause      time.Duration       // of the last withdrawal
	back       time.Time           // when it ended
}

// struggles notes how a look at the leases went. No error without any shard proves
// nothing: a takeover that always fails is cleaned up in between.
func (h *health) struggles(err error, held int, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil && held > 0:
		h.struggling = time.Time{}
	case err != nil && h.struggling.IsZero():
		h.struggling = now
	}
}

// stuck tells whether something has not moved for so long. Shards that the session
// does not hold are forgotten, but not while it holds none: sessions that fail come
// and go.
func (h *health) stuck(held map[int16]time.Time, now time.Time, long time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.moved == nil {
		h.moved = map[int16]time.Time{}
	}
	if len(held) > 0 {
		for shard := range h.moved {
			if _, here := held[shard]; !here {
				delete(h.moved, shard)
			}
		}
	}
	stuck := !h.struggling.IsZero() && now.Sub(h.struggling) > long
	for shard, at := range held {
		switch seen, known := h.moved[shard]; {
		case !known && at.IsZero():
			h.moved[shard] = now
		case at.After(seen):
			h.moved[shard] = at
		}
		stuck = stuck || now.Sub(h.moved[shard]) > long
	}
	return stuck
}

// anew begins to count again.
func (h *health) anew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved, h.struggling = nil, time.Time{}
}

func (h *health) withdrawn(out bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.out = out; !out {
		h.back = time.Now()
	}
}

func (h *health) isOut() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out
}

// away returns how long to stay away: twice as long as the last time, unless all was
// well for long.
func (h *health) away(shortest time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.back) > 2*h.pause+10*shortest {
		h.pause = 0
	}
	h.pause = max(min(2*h.pause, longestWithdrawal), shortest)
	return h.pause
}

const longestWithdrawal = 10 * time.Minute

// unable is how long an engine may fail before others get its share.
func (e *engine) unable() time.Duration {
	if e.r.tune.unable > 0 {
		return e.r.tune.unable
	}
	return 4 * e.r.cfg.Lease
}

// watch withdraws the engine from sharing when its shards do not move and its errors
// go on, if there is somebody to take over: a living instance, or, where it is the
// broker that does not answer, one that has stored a position meanwhile. An outage
// that all share moves nothing.
func (e *engine) watch(ctx context.Context, t *tenure) {
	for ctx.Err() == nil {
		sleep(ctx, e.r.tune.standby)
		s := e.session()
		if s == nil {
			continue
		}
		if e.health.isOut() { // its session ended by itself meanwhile, and this is the next
			s.end(errUnable)
			continue
		}
		now, long := time.Now(), e.unable()
		if !e.health.stuck(s.progress.moved(), now, long) || now.Sub(e.stats.failedAt()) > long {
			continue
		}
		broker, _, _ := s.parking.broker.look()
		op, cancel := e.r.op(ctx)
		tag, err := e.r.pool.Exec(op, e.r.q.withdraw, t.name, e.name, broker == circuitClosed, long.Milliseconds())
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.log.Warn("relay: withdrawing failed", "instance", t.name, "error", err)
		case tag.RowsAffected() == 0: // nobody would do better
			e.health.anew()
		default:
			e.health.withdrawn(true)
			s.end(errUnable)
		}
	}
}

// stayAway waits, after a withdrawal, longer each time, or until nobody else is left.
func (e *engine) stayAway(ctx context.Context, t *tenure) {
	if !e.health.isOut() {
		return
	}
	e.health.anew()
	pause := e.health.away(e.unable())
	e.log.Error("relay: withdrawn, another instance has the shards", "instance", t.name, "for", pause)
	for until := time.Now().Add(pause); ctx.Err() == nil; {
		sleep(ctx, e.r.tune.standby)
		op, cancel := e.r.op(ctx)
		tag, err := e.r.pool.Exec(op, e.r.q.comeBack, t.name, e.name, time.Now().After(until))
		cancel()
		if err == nil && tag.RowsAffected() > 0 {
			e.health.withdrawn(false)
			e.log.Info("relay: sharing again", "instance", t.name)
			return
		}
	}
}

// moved lists the shards that are to stay, and when they advanced in this session.
func (p *progress) moved() map[int16]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := map[int16]time.Time{}
	for shard, sp := range p.shards {
		if sp.state == gained || sp.state == read {
			list[shard] = sp.moved
		}
	}
	return list
}

// failedAt is the time of the last error.
func (p *pipelineStats) failedAt() (at time.Time) {
	p.change(func(s *PipelineStats) { at = s.LastErrorAt })
	return at
}
