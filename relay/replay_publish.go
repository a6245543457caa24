package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// ErrRefused says that the destination refused so many events for good that
// something else must be wrong.
var ErrRefused = errors.New("the destination refuses too many events; mend it and resume the replay, or begin another one without them")

// refusedMost is how many events a run passes over.
const refusedMost = 100

// ReplayFailure is an event that can never be published where the replay goes: too
// large, or refused by its schema.
type ReplayFailure struct {
	LogID  int64  `json:"logId"`
	ID     string `json:"id"`
	Topic  string `json:"topic"` // at the broker
	Key    string `json:"key"`
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

// refusals are the events that a replay passes over, and the keys behind them.
type refusals struct {
	list  []ReplayFailure
	lanes map[lane]int64 // log id of the first, where it holds later ones back
	held  int64          // events passed over behind them
	run   int            // of list, those of this run
	dirty bool           // list has changed since it was stored
}

// passOver marks the events that a refused one holds back, and those known to be
// refused. Earlier ones of such keys, which a resumed replay meets again, go out.
func (f *refusals) passOver(items []*item) {
	for _, it := range items {
		if it.done || it.park != "" {
			continue
		}
		if i := f.index(it.id); i >= 0 {
			it.park = stateDead
			continue
		}
		if first, ok := f.lanes[laneOf(&it.msg)]; ok && it.id > first {
			it.park = stateBlocked
			f.held++
		}
	}
}

func (f *refusals) index(id int64) int {
	for i := range f.list {
		if f.list[i].LogID == id {
			return i
		}
	}
	return -1
}

// add notes what was refused. Later events of a key wait as they do behind a parked
// one (Pipeline.BlockKey): here, for another replay.
func (f *refusals) add(it *item, block bool) error {
	if f.run == refusedMost {
		return fmt.Errorf("%w: %d in this run, then event %s (log id %d): %w", ErrRefused, f.run, it.msg.ID, it.id, it.failed)
	}
	m := &it.msg
	f.list = append(f.list, ReplayFailure{LogID: it.id, ID: m.ID, Topic: m.Topic, Key: m.Key, Type: m.Type, Reason: reasonText(it.failed)})
	f.run++
	f.dirty = true
	f.block(f.list[len(f.list)-1], block)
	it.park = stateDead
	return nil
}

func (f *refusals) block(e ReplayFailure, block bool) {
	l := lane{e.Topic, e.Key}
	if _, ok := f.lanes[l]; ok || !block || e.Key == "" {
		return
	}
	if f.lanes == nil {
		f.lanes = map[lane]int64{}
	}
	f.lanes[l] = e.LogID
}

// text is what is to be stored, nil if that has not changed.
func (f *refusals) text() *string {
	if !f.dirty {
		return nil
	}
	data, _ := json.Marshal(f.list) // of texts: cannot fail
	text := string(data)
	return &text
}

func (r *replayer) blocks() bool { return r.to.BlockKey == nil || *r.to.BlockKey }

// publish returns nil when the broker has confirmed every event, or refused it for
// good; it waits for a broker that is away and for a bad destination. Otherwise the
// cursor stands before the first event that is open.
func (r *replayer) publish(ctx context.Context, items []*item) error {
	pause := jitter(r.relay.tune.retryMax)
	r.refused.passOver(items)
	for todo := unresolved(items); len(todo) > 0; todo = unresolved(todo) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.out.attempt(todo)
		left := unresolved(todo)
		r.published += int64(len(todo) - len(left))
		if len(left) < len(todo) {
			pause.Reset()
		}
		refused, err := r.refuse(left)
		r.moveTo(items)
		if err != nil {
			return err
		}
		if refused || len(left) == 0 {
			continue // with what it held back
		}
		if err := r.wait(ctx, left, pause.NextBackOff()); err != nil {
			return err
		}
	}
	return nil
}

// refuse passes over what can never be published.
func (r *replayer) refuse(left []*item) (refused bool, err error) {
	for _, it := range left {
		if errors.Is(it.failed, brokers.ErrHeld) || brokers.ClassOf(it.failed) != brokers.ClassRejected {
			continue
		}
		if err := r.refused.add(it, r.blocks()); err != nil {
			return true, err
		}
		refused = true
		r.cfg.Logger.Error("replay: event refused for good", "replay", r.id, "event", it.msg.ID, "topic", it.msg.Topic, "key", it.msg.Key, "reason", it.failed)
	}
	if refused {
		r.refused.passOver(left)
	}
	return refused, nil
}

// moveTo moves the cursor over the page's first events, as far as they are resolved.
func (r *replayer) moveTo(items []*item) {
	for _, it := range items {
		if !it.done && it.park == "" {
			return
		}
		r.cursor = it.id
	}
}

// wait tells what it waits for, also in the database: who looks there must not take
// the replay for dead.
func (r *replayer) wait(ctx context.Context, left []*item, pause time.Duration) error {
	reason := left[0].failed
	for _, it := range left {
		if !errors.Is(it.failed, brokers.ErrHeld) {
			reason = it.failed
			break
		}
	}
	r.cfg.Logger.Warn("replay: publishing failed, trying again", "replay", r.id, "events", len(left), "reason", reason)
	r.tell(reason, false)
	if time.Since(r.saved) >= r.relay.tune.flushEvery && ctx.Err() == nil {
		if err := r.save(ctx, replayRunning, reason); err != nil {
			return err
		}
	}
	sleep(ctx, pause)
	return nil
}
