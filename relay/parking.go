package relay

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/brokers"
)

// parkTuning holds constants of the failure policy that tests change.
type parkTuning struct {
	topicTrip int           // failures in a row that open a topic's circuit
	every     time.Duration // between looks for parked events that are due
	base, max time.Duration // backoff of a parked event
	attempts  int           // after so many a retried event is dead
	age       time.Duration // or when it has been retried for so long
	rows      int           // parked events published at once
	bytes     int64         // and their size
	keys      int           // parked keys kept in memory
}

func defaultParkTuning() parkTuning {
	return parkTuning{
		topicTrip: 3, every: 500 * time.Millisecond, base: time.Second, max: 5 * time.Minute,
		attempts: 20, age: 24 * time.Hour, rows: 256, bytes: 4 << 20, keys: 1 << 20,
	}
}

// States of a parked event.
const (
	stateRetrying  = "retrying"
	stateBlocked   = "blocked"
	stateDead      = "dead"
	stateDiscarded = "discarded"
)

// lane is what order is kept for.
type lane struct{ topic, key string }

func laneOf(m *brokers.Message) lane { return lane{m.Topic, m.Key} }

// parking is what a session knows about its pipeline's parked events and its
// circuits.
//
// Only the owner of a shard's lease parks its events, and anybody may take parked
// events away. So what is known here can only err on the side of "parked", and
// that is looked up before it counts.
type parking struct {
	block  bool
	broker *circuit
	topics *topicCircuits
	budget *retryBudget
	// trouble is held during an attempt while the broker's circuit is not closed.
	trouble sync.Mutex

	// storing keeps apart the transactions that park and those that resolve: one
	// that queues an event behind another must not miss that this one goes.
	storing sync.Mutex

	mu     sync.Mutex
	any    bool                // there may be parked events
	loaded bool                // keys is complete
	loads  int                 // how often it had to be loaded anew
	full   bool                // keys had no room: any lane may be parked
	keys   map[uint64]struct{} // hashes of lanes, at most parkTuning.keys
	stale  int                 // look-ups in vain since keys was loaded
	seed   maphash.Seed

	claims []int64 // of parked events that are not settled; retryParked's alone
}

func (e *engine) newParking() *parking {
	return &parking{
		block:  e.BlockKey == nil || *e.BlockKey,
		broker: newCircuit(1, e.r.tune.retryMax, e.r.tune.now),
		topics: &topicCircuits{m: map[string]*circuit{}, make: func() *circuit {
			return newCircuit(e.r.tune.park.topicTrip, e.r.tune.badMax, e.r.tune.now)
		}},
		budget: &retryBudget{tokens: retryBurst},
		keys:   map[uint64]struct{}{}, seed: maphash.MakeSeed(), loaded: true,
	}
}

// park stores the page's events that could not be published together with the
// position after the page, or neither. An error ends the session: what counts is
// then what the database says.
func (s *session) park(pg page) error {
	var list []*item
	for _, it := range pg.events {
		if it.park != "" {
			list = append(list, it)
		}
	}
	if len(list) == 0 {
		return nil
	}
	p := s.parking
	s.flushing.Lock()
	defer s.flushing.Unlock()
	p.storing.Lock()
	defer p.storing.Unlock()
	// Before, so that nobody misses them, whatever becomes of the transaction.
	p.mu.Lock()
	p.any = true
	for _, it := range list {
		if p.block && it.msg.Key != "" {
			p.add(laneOf(&it.msg), s.r.tune.park.keys)
		}
	}
	p.mu.Unlock()
	moved := s.progress.at(pg.shards, pg.to)
	var accepted map[int16]bool
	if err := s.inTx(context.WithoutCancel(s.ctx), func(ctx context.Context, tx pgx.Tx) error { // as a flush
		var err error
		if accepted, err = s.storePosition(ctx, tx, moved); err != nil {
			return err
		}
		shards := slices.Collect(maps.Keys(accepted))
		_, err = tx.Exec(ctx, s.r.q.park, parkArgs(s.name, p.block, list, s.r.tune.park.base, shards)...)
		return err
	}); err != nil {
		return fmt.Errorf("park %d events: %w", len(list), err)
	}
	s.progress.advance(pg.shards, pg.to, false)
	if refused := s.progress.saved(moved, accepted); refused > 0 {
		s.log.Warn("relay: shards lost while parking", "shards", refused)
	}
	s.reportParked(list)
	return nil
}

// storePosition is a flush within a transaction: the leases stay locked until it
// ends. Refused shards are missing from what it returns: their events are for
// their new owners.
func (s *session) storePosition(ctx context.Context, tx pgx.Tx, moved []flushed) (map[int16]bool, error) {
	rows, err := tx.Query(ctx, s.r.q.flush, flushArgs(s.name, s.t, moved)...)
	if err != nil {
		return nil, err
	}
	accepted := map[int16]bool{}
	var shards []int16
	_, err = pgx.ForEachRow(rows, []any{&shards}, func() error {
		for _, shard := range shards {
			accepted[shard] = true
		}
		return nil
	})
	return accepted, err
}

// at lists shards as a flush would that moves them to a position.
func (p *progress) at(shards []int16, to position) []flushed {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []flushed
	for _, shard := range shards {
		if sp := p.shards[shard]; sp != nil && !sp.lost {
			list = append(list, flushed{shard: shard, epoch: sp.epoch, at: to})
		}
	}
	return list
}

// staying lists the shards whose parked events are this session's to publish.
func (p *progress) staying() []int16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []int16{}
	for shard, sp := range p.shards {
		if sp.state == gained || sp.state == read {
			list = append(list, shard)
		}
	}
	return list
}

// hold keeps shards from being handed over until let, and returns the epochs of
// those that were not on their way out already.
func (p *progress) hold(shards map[int16]bool) map[int16]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	epochs := map[int16]int64{}
	for shard := range shards {
		if sp := p.shards[shard]; sp != nil && !sp.lost && (sp.state == gained || sp.state == read) {
			sp.busy = true
			epochs[shard] = sp.epoch
		}
	}
	return epochs
}

func (p *progress) let(epochs map[int16]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for shard := range epochs {
		if sp := p.shards[shard]; sp != nil {
			sp.busy = false
		}
	}
}

func parkArgs(pipeline string, block bool, list []*item, base time.Duration, shards []int16) []any {
	n := len(list)
	ids, events := make([]int64, n), make([]string, n)
	topics := make([]string, n)
	states, classes, reasons := make([]string, n), make([]string, n), make([]string, n)
	attempts, delays := make([]int32, n), make([]int64, n)
	for i, it := range list {
		ids[i], events[i], states[i] = it.id, it.msg.ID, it.park
		topics[i] = it.msg.Topic
		attempts[i] = int32(min(it.tries, 1000)) //nolint:gosec // bounded
		if it.failed != nil && !errors.Is(it.failed, brokers.ErrHeld) {
			classes[i], reasons[i] = brokers.ClassOf(it.failed).String(), reasonText(it.failed)
		}
		if it.park == stateRetrying && it.tries > 0 {
			delays[i] = base.Milliseconds()
		}
	}
	return []any{pipeline, block, ids, events, states, classes, reasons, attempts, delays, shards, topics}
}

// reasonText is an error's text as the database takes it: bounded, valid, no NUL.
func reasonText(err error) string {
	text := []byte(err.Error())
	text = slices.DeleteFunc(text, func(b byte) bool { return b == 0 })
	if len(text) > 2000 {
		text = text[:2000]
	}
	return string([]rune(string(text)))
}

// reportParked writes one line a topic and state: thousands may be parked alike.
func (s *session) reportParked(list []*item) {
	s.stats.parked(len(list))
	type kind struct{ topic, state string }
	count, first := map[kind]int{}, map[kind]*item{}
	for _, it := range list {
		k := kind{it.msg.Topic, it.park}
		if count[k]++; first[k] == nil {
			first[k] = it
		}
	}
	for k, it := range first {
		if k.state == stateBlocked {
			continue
		}
		s.stats.failed(fmt.Errorf("event %s, topic %q: parked as %s: %w", it.msg.ID, k.topic, k.state, it.failed))
		attrs := []any{"topic", k.topic, "state", k.state, "events", count[k], "first", it.msg.ID, "key", it.msg.Key, "reason", it.failed}
		if id := it.msg.TraceID(); id != "" {
			attrs = append(attrs, "trace_id", id)
		}
		s.log.Error("relay: events parked", attrs...)
	}
}
