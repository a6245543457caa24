package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/internal/sqltx"
)

// frozenGrace is added to the handler's timeout.
const frozenGrace = 5 * time.Second

// patience is when the database ends the transaction of a process that has
// stopped talking to it, and how long our own statements may take.
func (r *runner) patience() time.Duration { return r.cfg.HandlerTimeout + frozenGrace }

// transaction is the one transaction of an attempt, in either of two forms.
type transaction struct {
	sqltx.Tx
	pgx      *heldTx // nil for OnSQL
	sql      *sql.Tx // nil for On
	conn     *pgx.Conn
	owner    context.Context //nolint:containedctx // the delivery's: ends when it is no longer ours; nil for none
	finish   func(ctx context.Context, commit bool) error
	finished bool
	since    time.Time // the connection was taken then; zero: nothing may follow on it
}

// opened is what beginning a transaction found out.
type opened struct {
	claim   dedup.Result
	blocked bool // there is an unresolved dead letter of this key
}

// begin begins a transaction, claims t in it and looks whether its key is
// blocked. A claim waits for another transaction that holds the same; that ends,
// at the latest when the database ends it for idleness, and so does the wait.
func (r *runner) begin(t *task, overSQL bool) (*transaction, opened, error) {
	var o opened
	tx, err := r.open(t.ctx, overSQL, r.opening(t, &o))
	return tx, o, err
}

// opening is what a transaction of t begins with. It fills o.
func (r *runner) opening(t *task, o *opened) *opening {
	query, args := r.prelude(t)
	return &opening{
		queue: func(b *pgx.Batch) {
			b.Queue(query, args...).QueryRow(func(row pgx.Row) error { return row.Scan(nil, &o.blocked) })
			r.store.Queue(b, t.key, &o.claim)
		},
		run: func(ctx context.Context, x *transaction) error {
			var timeout string
			if err := x.QueryRow(ctx, query, args...).Scan(&timeout, &o.blocked); err != nil {
				return err
			}
			claims, err := r.store.ClaimSQL(ctx, x.sql, t.key)
			if err == nil {
				o.claim = claims[0]
			}
			return err
		},
	}
}

// prelude is the statement before the claim.
func (r *runner) prelude(t *task) (string, []any) {
	if !r.blocks(t) {
		return r.sql.prelude, []any{r.idle()}
	}
	m := &t.d.Message
	return r.sql.preludeBlocked, []any{r.idle(), r.store.ConsumerID(), t.hash, storable(m.Topic), storable(m.Key)}
}

// idle is when the database ends a transaction that does nothing, as a setting.
func (r *runner) idle() string { return strconv.FormatInt(r.patience().Milliseconds(), 10) }

// blocks reports whether t waits behind dead letters of its key.
func (r *runner) blocks(t *task) bool { return *r.cfg.BlockKey && t.d.Message.Key != "" }

// opening is the statements that a transaction begins with, in both forms.
type opening struct {
	queue func(b *pgx.Batch)
	run   func(ctx context.Context, x *transaction) error
}

// open begins a transaction for deliveries that are ours until ctx ends.
func (r *runner) open(ctx context.Context, overSQL bool, with *opening) (*transaction, error) {
	limited, cancel := context.WithTimeout(ctx, r.patience()+frozenGrace)
	defer cancel()
	begin := r.openPgx
	if overSQL {
		begin = r.openOverSQL
	}
	tx, err := begin(limited, with)
	if err != nil {
		return nil, fmt.Errorf("begin and claim: %w", err)
	}
	tx.owner = ctx
	return tx, nil
}

// openPgx does it all in one round trip.
func (r *runner) openPgx(ctx context.Context, with *opening) (*transaction, error) {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	with.queue(b)
	results := r.pool.SendBatch(ctx, b)
	err := results.Close()
	tx := results.Tx()
	finish := func(ctx context.Context, commit bool) error {
		if commit {
			return tx.Commit(ctx)
		}
		return tx.Rollback(ctx)
	}
	if err != nil {
		_ = withGrace(frozenGrace, func(ctx context.Context) error { return finish(ctx, false) })
		return nil, err
	}
	x := &transaction{Tx: sqltx.Pgx(tx), pgx: &heldTx{Tx: tx}, conn: tx.Conn(), finish: finish}
	if r.plainPool {
		x.since = time.Now()
	}
	return x, nil
}

// openOverSQL does the same through database/sql.
func (r *runner) openOverSQL(ctx context.Context, with *opening) (*transaction, error) {
	x, err := r.openSQL(ctx)
	if err != nil {
		return nil, err
	}
	if err := with.run(ctx, x); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// openSQL begins a transaction of database/sql.
func (r *runner) openSQL(ctx context.Context) (_ *transaction, err error) {
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	x := &transaction{}
	// database/sql rolls back when the context of the beginning ends: that must
	// not be ctx, which ends with open.
	txCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, cancel)()
	x.finish = func(ctx context.Context, commit bool) error {
		defer conn.Close() //nolint:errcheck // gives it back to the pool
		defer cancel()
		defer context.AfterFunc(ctx, cancel)() // a commit of database/sql takes no context
		switch {
		case x.sql == nil:
			return nil
		case commit:
			return x.sql.Commit()
		default:
			return x.sql.Rollback()
		}
	}
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	err = conn.Raw(func(driver any) error {
		x.conn = driver.(*stdlib.Conn).Conn()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if x.sql, err = conn.BeginTx(txCtx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}); err != nil {
		return nil, err
	}
	x.Tx = sqltx.SQL(x.sql)
	return x, nil
}

// commitGrace is what a commit has left when its delivery stops being ours: with
// a database that does not answer, Run would outlast its drain by far.
const commitGrace = 2 * time.Second

// commit has a time of its own: it must not be cut off at once because the
// message's context ends.
func (x *transaction) commit(limit time.Duration) error {
	x.finished = true
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if x.owner != nil {
		defer context.AfterFunc(x.owner, func() {
			pause(commitGrace, ctx, ctx)
			cancel()
		})()
	}
	return x.finish(ctx, true)
}

// close rolls back what has not been committed.
func (x *transaction) close() {
	if x.finished {
		return
	}
	x.finished = true
	_ = withGrace(frozenGrace, func(ctx context.Context) error { return x.finish(ctx, false) })
}

// misused returns what a content handler did wrong: it tried to end the
// transaction itself, or left it busy.
func (x *transaction) misused() error {
	switch {
	case x.pgx == nil: // database/sql forbids neither, and copes
		return nil
	case x.pgx.ended:
		return errHandlerEnded
	case x.conn.PgConn().IsBusy():
		return errHandlerBusy
	}
	return nil
}

// heldTx is what a handler gets: it cannot end the transaction, and that it
// tried is remembered, because it may count on what it thinks has been done.
type heldTx struct {
	pgx.Tx
	ended bool
	mu    sync.Mutex
	left  bool // the handler has been given up, or has returned; see transaction_left.go
	lent  bool // it has got what outlives that
}

func (t *heldTx) Commit(context.Context) error   { return t.end() }
func (t *heldTx) Rollback(context.Context) error { return t.end() }

func (t *heldTx) end() error {
	t.ended = true
	return errHandlerEnded
}

func withGrace(limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return f(ctx)
}
