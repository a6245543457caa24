package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxkit/outboxkit/event"
)

// handle runs the handler in a's transaction and commits.
func (r *worker) handle(a *attempt) (result, error) {
	t, tx := a.task, a.tx
	ctx, cancel := context.WithTimeoutCause(t.ctx, r.cfg.HandlerTimeout, errTimeout)
	defer cancel()
	stubborn, err := r.supervise(ctx, func() error { return a.run(event.WithCause(ctx, envelope(&t.d.Message)), tx, t.attempts+1) })
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
		var next *share
		if next, err = r.commit(a); err == nil {
			r.stats.handled.Add(1)
			t.breaker.succeeded(&t.trial)
			res, err := r.ack(t, nil)
			res.next = next
			return res, err
		}
		switch lost = commitLost(err); {
		case lost && a.plain && (ownContext(err) || unsent(err)):
			return result{what: again}, nil // no outage: it was what came along
		case lost:
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

// unsent reports whether a commit was not tried because of what was to follow it.
func unsent(err error) bool {
	var batch pgx.ErrPreprocessingBatch
	return errors.As(err, &batch)
}

// commitLost reports whether it is unknown if the commit happened. Not asked of
// the connection, which may be somebody else's by now.
func commitLost(err error) bool {
	if unsent(err) {
		return true
	}
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
