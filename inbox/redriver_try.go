package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxkit/outboxkit/event"
)

// try makes one attempt at a row and returns the one whose turn it is then. Its
// error is the database's, and counts against nobody.
func (d *redriveWorker) try(n int64) (next int64, err error) {
	r, err := d.load(n)
	if err != nil || r == nil {
		return 0, err
	}
	h, ok := d.handlers[r.d.Message.Type]
	if !ok {
		return 0, d.fail(r, &death{reason: reasonNoType, err: "the message has no event type"}, 0)
	}
	if !r.admitted(h) {
		pause(d.poll, d.ctx, d.ctx)
		return 0, nil
	}
	if r.trial != nil {
		defer h.breaker.spared(r.trial) // unless something was learned
	}
	ctx, cancel := context.WithTimeoutCause(d.hard, d.cfg.HandlerTimeout, errTimeout)
	defer cancel()
	var run call
	err = guard(func() (err error) {
		run, err = h.bind(ctx, d.cfg.Wire, &r.d)
		return err
	})
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, event.ErrSchemaUnavailable):
		return 0, d.putOff(r, err)
	default:
		return 0, d.fail(r, newDeath(reasonUndecodable, err), 0)
	}
	end, crashed, err := d.venture(ctx, d.store.UUID(identity(&r.d)), true)
	switch {
	case err != nil:
		return 0, err
	case crashed > 0:
		return 0, d.fail(r, newDeath(reasonCrashed, errCrashed(crashed)), 0)
	}
	defer end()
	opening, stop := context.WithTimeout(d.hard, d.patience())
	defer stop()
	tx, err := d.open(opening, n, h.overSQL)
	if err != nil || tx == nil {
		return 0, err
	}
	defer tx.close()
	return d.run(h, r, tx, run)
}

// run runs the handler in tx and commits.
func (d *redriveWorker) run(h handler, r *redriven, tx *transaction, run call) (next int64, err error) {
	ctx, cancel := context.WithTimeoutCause(d.hard, d.cfg.HandlerTimeout, errTimeout)
	defer cancel()
	stubborn, err := d.supervise(ctx, func() error { return run(event.WithCause(ctx, envelope(&r.d.Message)), tx, r.attempts+1) })
	if stubborn != nil {
		return 0, d.abandon(r, tx, stubborn)
	}
	lost := tx.conn.IsClosed()
	if err == nil {
		err = tx.misused()
	}
	if err == nil {
		var unknown bool
		if next, unknown, err = d.commit(r, tx); err == nil {
			d.resolved(r)
			if r.trial != nil {
				h.breaker.succeeded(r.trial)
			}
			return next, nil
		}
		if unknown {
			d.lose(r.n)
			return 0, err // committed or not: the row tells
		}
	}
	tx.close()
	switch {
	case d.hard.Err() != nil:
		return 0, nil // the row is there for another inbox
	case errors.Is(context.Cause(ctx), errTimeout):
		err = fmt.Errorf("%w after %s: %w", errTimeout, d.cfg.HandlerTimeout, err)
	case ownContext(err): // see handle
	case lost && d.lose(r.n) < maxLost, databaseFault(err):
		return 0, err
	}
	class := reasonAttempts
	switch err = d.cfg.classify(err); {
	case isUnavailable(err):
		r.unavailable(h, err)
		return 0, d.putOff(r, err)
	case isPermanent(err):
		class = reasonPermanent
	case r.trial != nil && !h.breaker.failed(r.trial, err, false):
		return 0, d.putOff(r, err)
	}
	return 0, d.fail(r, newDeath(class, err), 1)
}

// abandon breaks off what a handler does that ignores its context, and waits for
// it, so that the row is not with another meanwhile.
func (d *redriver) abandon(r *redriven, tx *transaction, returned <-chan struct{}) error {
	d.log.Error("inbox: the handler of a redriven dead letter ignores its context", append(r.attrs(), "timeout", d.cfg.HandlerTimeout)...)
	tx.breakOff(returned)
	select {
	case <-returned:
	case <-d.hard.Done():
		return nil
	}
	return d.fail(r, newDeath(reasonAttempts, fmt.Errorf("%w after %s, and did not return", errTimeout, d.cfg.HandlerTimeout)), 1)
}

// commit finishes the row and commits, both together with what the handler did. If
// it is unknown whether that has happened the row tells.
func (d *redriver) commit(r *redriven, tx *transaction) (next int64, unknown bool, err error) {
	if next, err = d.done(tx, r); err != nil {
		if aborted(err) {
			return 0, false, commitError(pgx.ErrTxCommitRollback)
		}
		return 0, commitLost(err), fmt.Errorf("finish a redrive: %w", err)
	}
	if err = tx.commit(d.patience()); err == nil || commitLost(err) {
		return next, err != nil, err
	}
	return 0, false, commitError(err)
}

// aborted reports that an earlier statement of the transaction has failed.
func aborted(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "25P02"
}

// fail stores a failure, counting attempts: the row is tried again, or dead again.
func (d *redriver) fail(r *redriven, why *death, attempts int) error {
	d.stats.failures.Add(int64(attempts))
	r.attempts += attempts
	state, wait, round := stateDead, time.Duration(0), r.attempts-r.earlier
	if why.reason == reasonAttempts && round < d.cfg.Attempts {
		state, wait = stateRetrying, d.waitAfter(round)
	}
	changed, err := d.exec(d.q.failed, r.n, state, why.reason, why.err, attempts, wait.Milliseconds())
	switch {
	case err != nil:
		return fmt.Errorf("store a failed redrive: %w", err)
	case changed == 0: // another inbox was faster, or it was discarded
	case state == stateDead:
		d.forget(r.n)
		d.log.Warn("inbox: dead again", append(r.attrs(), "reason", why.reason, "attempts", r.attempts, "error", why.err)...)
	default:
		d.log.Warn("inbox: redrive failed; will try again", append(r.attrs(), "attempt", r.attempts, "error", why.err, "wait", wait)...)
	}
	return nil
}

// putOff has the row tried again later, without counting: it is not the row's
// fault.
func (d *redriver) putOff(r *redriven, why error) error {
	if d.hard.Err() != nil {
		return nil
	}
	wait := d.cfg.RetryMax
	d.log.Warn("inbox: redrive: not now; will try again", append(r.attrs(), "error", why, "wait", wait)...)
	_, err := d.exec(d.q.later, r.n, wait.Milliseconds())
	return err
}

func (d *redriver) exec(query string, args ...any) (changed int64, err error) {
	ctx, cancel := context.WithTimeout(d.hard, d.patience())
	defer cancel()
	tag, err := d.pool.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

// waitAfter is the pause after so many failed attempts.
func (d *redriver) waitAfter(attempts int) (wait time.Duration) {
	pauses := d.backoff(d.cfg.RetryMax)
	for range attempts {
		wait = pauses.NextBackOff()
	}
	return wait
}

func (d *redriver) resolved(r *redriven) {
	d.stats.redriven.Add(1)
	d.log.Debug("inbox: redriven", r.attrs()...)
	d.mu.Lock()
	d.progress = true
	d.mu.Unlock()
	d.forget(r.n)
}

// lose counts a connection that was lost while the row's handler ran.
func (d *redriver) lose(n int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost[n]++
	return d.lost[n]
}

func (d *redriver) losses(n int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost[n]
}

func (d *redriver) forget(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.lost, n)
}

func (r *redriven) attrs() []any {
	m := &r.d.Message
	attrs := []any{"n", r.n, "type", m.Type, "source", m.Source, "id", m.ID, "key", m.Key, "origin", r.d.Origin.String()}
	if id := m.TraceID(); id != "" {
		attrs = append(attrs, "trace_id", id)
	}
	return attrs
}
