package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/planted"
)

// join writes the instance row under a new name and starts its clock.
func (r *Relay) join(ctx context.Context, tok token) (*tenure, error) {
	t := &tenure{r: r, name: r.cfg.Instance + "/" + uuid.NewString()[:8], token: tok}
	sent := r.tune.now()
	op, cancel := r.op(ctx)
	defer cancel()
	if _, err := r.pool.Exec(op, r.q.join, t.name, r.cfg.Lease.Milliseconds(), r.pipelines()); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	t.work, t.end = context.WithCancelCause(context.WithoutCancel(ctx))
	t.expiry = time.AfterFunc(time.Hour, func() { t.end(errLeaseLost) })
	t.extend(sent)
	context.AfterFunc(t.work, func() { t.expiry.Stop() })
	return t, nil
}

// extend counts from before the heartbeat was sent: the database counted from a
// later moment, so the lease cannot have expired there while we think it valid.
// A fifth is kept back for a Publish call to return in.
func (t *tenure) extend(sent time.Time) {
	if planted.Is(planted.NoFencing) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deadline = sent.Add(t.r.cfg.Lease * 4 / 5)
	t.expiry.Reset(t.deadline.Sub(t.r.tune.now()))
}

// alive is asked before every publication, beside the timer: after a SIGSTOP a
// publisher may run before the timer does. The wall clock is asked too, because
// the monotonic one stands still while a machine is suspended.
func (t *tenure) alive() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.r.tune.now()
	if planted.Is(planted.NoFencing) {
		return t.work.Err() == nil
	}
	if !now.Before(t.deadline) || !now.Round(0).Before(t.deadline.Round(0)) {
		t.end(errLeaseLost)
	}
	return t.work.Err() == nil
}

// heartbeat keeps the instance row alive. The update does not ask whether the row
// has expired: whoever takes over deletes it first, under its row lock, so a row
// that is still there has been taken by nobody.
func (t *tenure) heartbeat(ctx context.Context) {
	every := t.r.cfg.Lease / 3
	for wait := every; ; {
		sleep(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		sent := t.r.tune.now()
		op, cancel := context.WithTimeout(ctx, every)
		tag, err := t.r.pool.Exec(op, t.r.q.beat, t.name, t.r.cfg.Lease.Milliseconds(), t.r.Stats().report())
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil: // the deadline ends it if this goes on
			t.r.cfg.Logger.Warn("relay: heartbeat failed", "instance", t.name, "error", err)
			wait = t.r.cfg.Lease / 20
		case tag.RowsAffected() == 0 && !planted.Is(planted.NoFencing):
			t.end(errLeaseLost)
			return
		default:
			t.extend(sent)
			wait = every
		}
	}
}

// retire tells the others that this instance will want no shards any more: they
// may take what it releases while it drains.
func (t *tenure) retire(ctx context.Context) {
	op, cancel := t.r.op(ctx)
	defer cancel()
	if _, err := t.r.pool.Exec(op, t.r.q.retire, t.name); err != nil && ctx.Err() == nil {
		t.r.cfg.Logger.Warn("relay: others wait with taking over until this instance has stopped", "instance", t.name, "error", err)
	}
}

// leave gives up all leases at once: a lease whose owner has no instance row is
// free. It runs after every publisher has stopped.
func (t *tenure) leave(ctx context.Context) {
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := t.r.pool.Exec(op, t.r.q.leave, t.name); err != nil {
		t.r.cfg.Logger.Warn("relay: leases not released, they expire by themselves", "instance", t.name, "error", err)
	}
}

// inTx runs f in a READ COMMITTED transaction, whatever the database's default:
// what it does relies on each statement seeing what was committed before it. The
// server ends the transaction of a process that is frozen in the middle, which
// would hold locks on everybody's leases for as long as it sleeps.
func (e *engine) inTx(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return inTx(ctx, e.r, f)
}

func inTx(ctx context.Context, r *Relay, f func(context.Context, pgx.Tx) error) error {
	op, cancel := r.op(ctx)
	defer cancel()
	begin := fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = %d", r.cfg.Lease.Milliseconds()/3)
	return pgx.BeginTxFunc(op, r.pool, pgx.TxOptions{BeginQuery: begin}, func(tx pgx.Tx) error { return f(op, tx) })
}
