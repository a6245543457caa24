package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
}

// errTimeout is the cause of a handler's context that ended by itself.
var errTimeout = errors.New("handler timed out")

// maxLost is how many connections may be lost while one message's handler runs
// before that counts as failing. An outage costs a message one: what keeps
// happening is a statement that kills its server.
const maxLost = 20

// step brings t as far as it gets without a pause of its own. While the database
// is away it waits here, with the worker: no other message could do better.
func (r *runner) step(t *task) result {
	for {
		if r.ctx.Err() != nil || t.ctx.Err() != nil {
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
func (r *runner) try(t *task) (result, error) {
	if t.seen {
		return r.duplicate(t)
	}
	h, run, res, over := r.prepare(t)
	if over {
		return res, nil
	}
	if t.dead == nil {
		if gap := h.breaker.begin(&t.trial); gap != nil {
			return result{what: again, gap: gap}, nil
		}
		defer h.breaker.spared(&t.trial) // unless it comes to the point
		end, crashed, err := r.venture(t.ctx, r.store.UUID(t.key), t.doubtful)
		switch {
		case err != nil:
			return result{}, err
		case crashed > 0:
			t.attempts = crashed
			t.die(reasonCrashed, errCrashed(crashed))
		default:
			defer end()
		}
	}
	tx, opened, err := r.begin(t, h.overSQL && t.dead == nil)
	if err != nil {
		return result{}, err
	}
	defer tx.close()
	r.back()
	t.outage.Reset()

	switch opened.claim {
	case dedup.Duplicate:
		r.repeats.Store(true)
		tx.close()
		return r.duplicate(t)
	case dedup.OutsideWindow:
		t.die(reasonOutsideWindow, fmt.Errorf("the id's time is more than %d days old or an hour ahead: whether it was handled before cannot be told", r.cfg.WindowDays))
	}
	if t.dead != nil {
		return r.bury(t, tx)
	}
	if opened.blocked {
		if blocked, err := r.block(t, tx); err != nil || blocked {
			return r.ack(t, err)
		}
	}
	return r.handle(t, tx, run)
}

// prepare finds the handler and decodes, both outside the transaction. It
// reports over when t needs no transaction now.
func (r *runner) prepare(t *task) (h handler, run call, res result, over bool) {
	m := &t.d.Message
	switch {
	case t.dead != nil:
		return h, nil, res, false
	case m.Type == "":
		t.die(reasonNoType, errors.New("the message has no event type"))
		return h, nil, res, false
	}
	h, ok := r.handlers[m.Type]
	switch {
	case !ok: // before the id is looked at: it is none of our business
		return r.noHandler(t)
	case m.ID == "":
		t.die(reasonNoID, errors.New("the message has no event id"))
		return h, nil, res, false
	}
	err := guard(func() (err error) {
		run, err = h.bind(t.ctx, r.cfg.Wire, t.d)
		return err
	})
	switch {
	case err == nil:
	case t.ctx.Err() != nil:
		return h, nil, result{what: again}, true // to be given back
	case errors.Is(err, event.ErrSchemaUnavailable):
		wait := t.retry.NextBackOff() // the bytes may be fine: not an attempt
		r.log.Warn("inbox: schema unavailable; will try again", append(t.attrs(), "error", err, "wait", wait)...)
		return h, nil, result{what: again, wait: wait}, true
	default:
		t.die(reasonUndecodable, err)
	}
	return h, run, res, false
}

func (r *runner) noHandler(t *task) (h handler, run call, res result, over bool) {
	switch name := t.d.Message.Type; r.cfg.Unknown {
	case UnknownFail:
		r.abort(fmt.Errorf("inbox: no handler for type %q (%s): register one, or set Config.Unknown", name, t.d.Origin))
		r.release(t)
		return h, nil, result{what: settled}, true
	case UnknownDeadLetter:
		t.die(reasonUnknownType, fmt.Errorf("no handler for type %q", name))
		return h, nil, res, false
	default:
		if _, logged := r.unknown.LoadOrStore(name, true); !logged {
			r.log.Warn("inbox: ignoring a type without handler (logged once)", "type", name, "origin", t.d.Origin.String())
		}
		r.stats.ignored.Add(1)
		res, _ = r.ack(t, nil)
		return h, nil, res, true
	}
}

// handle runs the handler in tx and commits.
func (r *runner) handle(t *task, tx *transaction, run call) (result, error) {
	ctx, cancel := context.WithTimeoutCause(t.ctx, r.cfg.HandlerTimeout, errTimeout)
	defer cancel()
	stubborn, err := r.hands.supervise(ctx, func() error { return run(event.WithCause(ctx, envelope(&t.d.Message)), tx, t.attempts+1) })
	if stubborn != nil {
		return r.abandon(t, tx, stubborn), nil
	}
	lost := tx.conn.IsClosed()
	if err == nil {
		err = tx.misused()
	}
	if err == nil {
		// Also when ctx has ended since: the handler is content, and whoever got the
		// message meanwhile waits for this claim.
		if err = tx.commit(r.patience()); err == nil {
			r.stats.handled.Add(1)
			t.breaker.succeeded(&t.trial)
			return r.ack(t, nil)
		}
		if lost = commitLost(err); lost {
			return result{}, err // committed or not: the next claim tells
		}
		err = commitError(err)
	}
	tx.close()
	switch cause := context.Cause(ctx); {
	case t.ctx.Err() != nil:
		r.release(t)
		return result{what: settled}, nil
	case errors.Is(cause, errTimeout):
		err = fmt.Errorf("%w after %s: %w", errTimeout, r.cfg.HandlerTimeout, err)
	case ownContext(err):
		// pgx closes a connection whose statement was given up: no outage.
	case lost && t.lost < maxLost:
		t.lost++
		return result{}, err
	case databaseFault(err):
		return result{}, err
	}
	return r.failed(t, err), nil
}

// ownContext reports that a context ended which the handler or its middleware
// made, since the handler's lives.
func ownContext(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
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
	return []any{"type", m.Type, "source", m.Source, "id", m.ID, "key", m.Key, "origin", t.d.Origin.String()}
}

// Mistakes in a handler.
var (
	errHandlerEnded = errors.New("the handler ended its transaction: return nil to commit, an error to roll back")
	errHandlerBusy  = errors.New("the handler returned while its transaction is busy: close a query's rows, or the results of a batch, before you return")
)

// commitError says what the handler did wrong where that is why its transaction
// could not be committed.
func commitError(err error) error {
	switch {
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fmt.Errorf("the handler returned nil though a statement of its transaction had failed: %w", err)
	case errors.Is(err, sql.ErrTxDone):
		return errHandlerEnded
	}
	return fmt.Errorf("commit: %w", err)
}

// commitLost reports whether it is unknown if the commit happened. Not asked of
// the connection, which may be somebody else's by now.
func commitLost(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "FATAL" || pgErr.SeverityUnlocalized == "PANIC"
	}
	return !errors.Is(err, pgx.ErrTxCommitRollback) && !errors.Is(err, pgx.ErrTxClosed) && !errors.Is(err, sql.ErrTxDone)
}

// databaseFault reports errors that are the database's own though its connection
// lives: every message would fail until somebody mends it.
func databaseFault(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	switch pgErr.Code {
	case "25006", // read only: no longer the primary
		"53100", // disk full
		"58030": // I/O error
		return true
	}
	return false
}

// outageCode reports errors at the start that pass by themselves.
func outageCode(code string) bool {
	switch code[:2] {
	case "08", "53", "57", "58": // connection, resources, shutting down or starting up, system
		return true
	}
	return code == "25006"
}
