package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/event"
)

type what int

const (
	settled what = iota // acknowledged or given back: the lane goes on
	again               // another step after a pause, in which only the lane waits
)

// result is what a step made of a message.
type result struct {
	what     what
	wait     time.Duration
	stubborn <-chan struct{} // or until its handler has returned; see abandon
	gap      *gap            // or until the type's breaker grants an attempt; see breaker.begin
	next     *share          // what the worker does next: its transaction has begun; see follow
}

// errTimeout is the cause of a handler's context that ended by itself.
var errTimeout = errors.New("handler timed out")

// maxLost is how many connections may be lost while one message's handler runs
// before that counts as failing. An outage costs a message one: what keeps
// happening is a statement that kills its server.
const maxLost = 20

// step brings t as far as it gets without a pause of its own. While the database
// is away it waits here, with the worker: no other message could do better.
func (r *worker) step(t *task) result {
	for {
		if r.ctx.Err() != nil || t.ctx.Err() != nil {
			if t.begun != nil {
				t.begun.close()
			}
			r.release(t)
			return result{what: settled}
		}
		if t.moving {
			return r.move(t)
		}
		res, err := r.try(t)
		if err == nil {
			return res
		}
		if r.ctx.Err() == nil && t.ctx.Err() == nil {
			r.gone(err)
			pause(t.outage.NextBackOff(), t.ctx, r.ctx)
		}
	}
}

// try makes one transaction of t. Its error is the database's, and counts
// against nobody.
func (r *worker) try(t *task) (result, error) {
	if t.seen {
		return r.duplicate(t)
	}
	a := t.begun
	if t.begun = nil; a == nil {
		a = &attempt{task: t}
		if res, over := r.find(a); over {
			return res, nil
		}
		if res, over := r.decode(t.ctx, a); over {
			return res, nil
		}
		if t.dead == nil {
			if gap := a.handler.breaker.begin(&t.trial); gap != nil {
				return result{what: again, gap: gap}, nil
			}
		}
	}
	defer a.close()
	if a.tx == nil {
		if err := r.start(a); err != nil {
			return result{}, err
		}
	}
	r.back()
	t.outage.Reset()

	switch a.claim {
	case dedup.Duplicate:
		r.repeats.Store(true)
		a.tx.close()
		return r.duplicate(t)
	case dedup.OutsideWindow:
		t.die(reasonOutsideWindow, fmt.Errorf("the id's time is more than %d days old or an hour ahead: whether it was handled before cannot be told", r.cfg.WindowDays))
	}
	if a.run == nil && t.dead == nil { // begun before it was decoded; see follow
		if res, over := r.decodeSoon(a); over {
			return res, nil
		}
	}
	if t.dead != nil {
		return r.bury(t, a.tx)
	}
	if a.blocked {
		if blocked, err := r.block(t, a.tx); err != nil || blocked {
			return r.ack(t, err)
		}
	}
	return r.handle(a)
}

// attempt is one transaction of a message, or what precedes it.
type attempt struct {
	*task
	opened // by tx

	handler handler
	run     call   // the decoded message's; nil until then
	end     func() // of the handler's venture; nil before it
	tx      *transaction
}

// close ends what has begun: the breaker's permission, unless it came to the
// point, and the transaction, unless it was committed.
func (a *attempt) close() {
	if a.tx != nil {
		a.tx.close()
	}
	if a.end != nil {
		a.end()
	}
	if a.breaker != nil {
		a.breaker.spared(&a.trial)
	}
}

// start begins a's transaction, after what must be known before its handler runs.
func (r *runner) start(a *attempt) error {
	t := a.task
	if t.dead == nil {
		end, crashed, err := r.venture(t.ctx, r.store.UUID(t.key), t.doubtful)
		if err != nil {
			return err
		}
		if a.end = end; crashed > 0 {
			t.attempts = crashed
			t.die(reasonCrashed, errCrashed(crashed))
		}
	}
	var err error
	a.tx, a.opened, err = r.begin(t, a.handler.overSQL && t.dead == nil)
	return err
}

// find finds the handler. It reports over when the message needs no transaction.
func (r *runner) find(a *attempt) (res result, over bool) {
	t := a.task
	m := &t.d.Message
	switch {
	case t.dead != nil:
		return res, false
	case m.Type == "":
		t.die(reasonNoType, errors.New("the message has no event type"))
		return res, false
	}
	h, ok := r.handlers[m.Type]
	switch {
	case !ok: // before the id is looked at: it is none of our business
		return r.noHandler(t)
	case m.ID == "":
		t.die(reasonNoID, errors.New("the message has no event id"))
	}
	a.handler = h
	return res, false
}

// decode decodes the message, unless it is dead already. It reports over when
// it cannot go on now.
func (r *runner) decode(ctx context.Context, a *attempt) (res result, over bool) {
	t := a.task
	if t.dead != nil {
		return res, false
	}
	err := guard(func() (err error) {
		a.run, err = a.handler.bind(ctx, r.cfg.Wire, t.d)
		return err
	})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return result{what: again}, true // to be given back, or for a step of its own
	case errors.Is(err, event.ErrSchemaUnavailable):
		wait := t.retry.NextBackOff() // the bytes may be fine: not an attempt
		r.log.Warn("inbox: schema unavailable; will try again", append(t.attrs(), "error", err, "wait", wait)...)
		return result{what: again, wait: wait}, true
	default:
		t.die(reasonUndecodable, err)
	}
	return res, false
}

// decodeSoon is decode within a transaction. What takes its time, a schema that has
// to be asked for, is for a step of its own, in which nothing else waits for it.
func (r *runner) decodeSoon(a *attempt) (res result, over bool) {
	ctx, cancel := context.WithTimeout(a.ctx, followFor)
	defer cancel()
	res, over = r.decode(ctx, a)
	a.own = over
	return res, over
}

func (r *runner) noHandler(t *task) (res result, over bool) {
	switch name := t.d.Message.Type; r.cfg.Unknown {
	case UnknownFail:
		r.abort(fmt.Errorf("inbox: no handler for type %q (%s): register one, or set Config.Unknown", name, t.d.Origin))
		r.release(t)
		return result{what: settled}, true
	case UnknownDeadLetter:
		t.die(reasonUnknownType, fmt.Errorf("no handler for type %q", name))
		return res, false
	default:
		if _, logged := r.unknown.LoadOrStore(name, true); !logged {
			r.log.Warn("inbox: ignoring a type without handler (logged once)", "type", name, "origin", t.d.Origin.String())
		}
		r.stats.ignored.Add(1)
		res, _ = r.ack(t, nil)
		return res, true
	}
}

// ack acknowledges t if err is nil.
func (r *runner) ack(t *task, err error) (result, error) {
	if err != nil {
		return result{}, err
	}
	if err := t.d.Ack(); err != nil && !errors.Is(err, brokers.ErrStale) {
		r.log.Warn("inbox: not acknowledged; it will come again as a duplicate", append(t.attrs(), "error", err)...)
	}
	return result{what: settled}, nil
}

func (t *task) attrs() []any {
	m := &t.d.Message
	attrs := []any{"type", m.Type, "source", m.Source, "id", m.ID, "key", m.Key, "origin", t.d.Origin.String()}
	if id := m.TraceID(); id != "" {
		attrs = append(attrs, "trace_id", id)
	}
	return attrs
}
