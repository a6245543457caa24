package inbox

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// A handler that has been given up, see runner.abandon, can do nothing more with
// its transaction: the connection is not its any more.

// use excludes leave, which would end the transaction under a statement. It
// reports false when the handler has been given up.
func (t *heldTx) use() (ok bool, done func()) {
	t.mu.Lock()
	return !t.left, t.mu.Unlock
}

// leave takes the transaction away from the handler. A statement under way ends
// first, which it does when its connection has been cut.
func (t *heldTx) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = true
}

// handOver is leave for a transaction that another one follows on its connection.
// It reports false if that must not be: the handler may still be at work in it, or
// has got something from it that would work in the next one.
func (t *heldTx) handOver() bool {
	if !t.mu.TryLock() {
		return false
	}
	defer t.mu.Unlock()
	if t.lent {
		return false
	}
	t.left = true
	return true
}

func (t *heldTx) gone() bool {
	ok, done := t.use()
	done()
	return !ok
}

func (t *heldTx) Begin(ctx context.Context) (pgx.Tx, error) {
	ok, done := t.use()
	defer done()
	if !ok {
		return nil, pgx.ErrTxClosed
	}
	t.lent = true
	return t.Tx.Begin(ctx)
}

func (t *heldTx) LargeObjects() pgx.LargeObjects {
	_, done := t.use()
	defer done()
	t.lent = true
	return t.Tx.LargeObjects()
}

func (t *heldTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	ok, done := t.use()
	defer done()
	if !ok {
		return nil, pgx.ErrTxClosed
	}
	return t.Tx.Prepare(ctx, name, sql)
}

func (t *heldTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	ok, done := t.use()
	defer done()
	if !ok {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	return t.Tx.Exec(ctx, sql, args...)
}

func (t *heldTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	ok, done := t.use()
	defer done()
	if !ok {
		return leftRows{}, pgx.ErrTxClosed
	}
	return t.Tx.Query(ctx, sql, args...)
}

func (t *heldTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	ok, done := t.use()
	defer done()
	if !ok {
		return leftRows{}
	}
	return heldRow{t, t.Tx.QueryRow(ctx, sql, args...)}
}

type heldRow struct {
	tx  *heldTx
	row pgx.Row
}

func (r heldRow) Scan(dest ...any) error {
	ok, done := r.tx.use()
	defer done()
	if !ok {
		return pgx.ErrTxClosed
	}
	return r.row.Scan(dest...)
}

// These two call back, so they exclude nothing.

func (t *heldTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if t.gone() {
		return 0, pgx.ErrTxClosed
	}
	return t.Tx.CopyFrom(ctx, table, columns, rows)
}

func (t *heldTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.gone() {
		return leftResults{}
	}
	return t.Tx.SendBatch(ctx, b)
}

// leftRows are no rows.
type leftRows struct{}

func (leftRows) Close()                                       {}
func (leftRows) Err() error                                   { return pgx.ErrTxClosed }
func (leftRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (leftRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (leftRows) Next() bool                                   { return false }
func (leftRows) Scan(...any) error                            { return pgx.ErrTxClosed }
func (leftRows) Values() ([]any, error)                       { return nil, pgx.ErrTxClosed }
func (leftRows) RawValues() [][]byte                          { return nil }
func (leftRows) Conn() *pgx.Conn                              { return nil }
func (leftRows) TypeMap() *pgtype.Map                         { return nil }

type leftResults struct{}

func (leftResults) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, pgx.ErrTxClosed }
func (leftResults) Query() (pgx.Rows, error)         { return leftRows{}, pgx.ErrTxClosed }
func (leftResults) QueryRow() pgx.Row                { return leftRows{} }
func (leftResults) Close() error                     { return pgx.ErrTxClosed }
func (leftResults) Tx() pgx.Tx                       { return nil }
