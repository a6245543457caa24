package dedup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/sqltx"
)

// In returns a [Store] that works inside tx: what do changes through tx is
// remembered together with its response when tx commits, and neither is if it
// rolls back. Should do fail, its changes are undone (a savepoint) and tx goes on.
//
// A key counts until tx ends: calls in other transactions wait that long, or get
// ErrInProgress. Bound how long a frozen process keeps them waiting with
// idle_in_transaction_session_timeout. Keys are remembered from the day of their
// use, whatever they look like, for Config.WindowDays. tx must be READ COMMITTED.
// Several keys in one transaction can deadlock with others that use them in
// another order; Postgres then ends one.
func (p *Postgres) In(tx pgx.Tx) Store { return inTx{p, sqltx.Pgx(tx)} }

// InSQL is [Postgres.In] for a *sql.Tx of pgx's database/sql driver.
func (p *Postgres) InSQL(tx *sql.Tx) Store { return inTx{p, sqltx.SQL(tx)} }

type inTx struct {
	*Postgres
	tx sqltx.Tx
}

const (
	isolationSQL = `, current_setting('transaction_isolation')`
	onceWaitSQL  = `SELECT pg_advisory_xact_lock($1)::text IS NOT NULL` + isolationSQL
	onceTrySQL   = `SELECT pg_try_advisory_xact_lock($1)` + isolationSQL
	rememberSQL  = `INSERT INTO %[1]s.seen_foreign (slot, consumer, event_key, response)
SELECT foreign_turn %% %[2]d, $1::integer, $2::uuid, $3::bytea FROM %[1]s.retention`

	savepoint = "outboxkit_once"
	// undoTimeout bounds the way back when ctx has ended.
	undoTimeout = 5 * time.Second
)

// Once implements [Store].
func (s inTx) Once(ctx context.Context, key Key, do func(ctx context.Context) ([]byte, error)) (answer Answer, err error) {
	if _, err := s.tx.Exec(ctx, `SAVEPOINT `+savepoint); err != nil {
		return Answer{}, fmt.Errorf("dedup: once: %w", err)
	}
	ok := false
	defer func() { // also when do panics: the caller may recover, and commit
		if !ok {
			err = errors.Join(err, s.undo(ctx))
		}
	}()
	stored := key.foreign()
	answer, err = s.look(ctx, stored)
	if err != nil {
		return Answer{}, err
	}
	if !answer.Duplicate {
		if answer.Response, err = do(ctx); err != nil {
			return Answer{}, err
		}
		_, err = s.tx.Exec(ctx, fmt.Sprintf(rememberSQL, s.cfg.Schema, slots), s.consumer, stored.uuid, answer.Response)
		if err != nil {
			return Answer{}, fmt.Errorf("dedup: once: remember: %w", err)
		}
	}
	if _, err = s.tx.Exec(ctx, `RELEASE SAVEPOINT `+savepoint); err != nil {
		return Answer{}, fmt.Errorf("dedup: once: %w", err)
	}
	ok = true
	return answer, nil
}

// look takes the key's lock, which ends with the transaction, and looks whether
// it is remembered.
func (s inTx) look(ctx context.Context, key eventKey) (Answer, error) {
	query := onceWaitSQL
	if s.cfg.Concurrent == Conflict {
		query = onceTrySQL
	}
	var locked bool
	var isolation string
	if err := s.tx.QueryRow(ctx, query, key.lock(s.consumer)).Scan(&locked, &isolation); err != nil {
		return Answer{}, fmt.Errorf("dedup: once: lock: %w", err)
	}
	switch {
	case isolation != "read committed":
		return Answer{}, fmt.Errorf("dedup: once: the transaction is %s: must be read committed, or it may not see what has just been handled", isolation)
	case !locked:
		return Answer{}, ErrInProgress
	}
	for range claimRounds {
		f := s.foreign.Load()
		var turn int64
		var answer Answer
		err := s.tx.QueryRow(ctx, f.response, s.consumer, key.uuid).Scan(&turn, &answer.Duplicate, &answer.Response)
		if err != nil {
			return Answer{}, fmt.Errorf("dedup: once: look: %w", err)
		}
		if !s.stale(f.turn, turn) {
			return answer, nil
		}
	}
	return Answer{}, errStale
}

// undo frees the key and takes back what do did.
func (s inTx) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if _, err := s.tx.Exec(ctx, `ROLLBACK TO SAVEPOINT `+savepoint); err != nil {
		return fmt.Errorf("dedup: once: undo (roll the transaction back): %w", err)
	}
	_, err := s.tx.Exec(ctx, `RELEASE SAVEPOINT `+savepoint)
	return err
}
