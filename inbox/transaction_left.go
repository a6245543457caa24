package inbox

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// A handler that has been given up, see runner.abandon, can do nothing more with
// its transaction: the connection is not its any more.

func (t *heldTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if t.left.Load() {
		return nil, pgx.ErrTxClosed
	}
	return t.Tx.Begin(ctx)
}

func (t *heldTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if t.left.Load() {
		return 0, pgx.ErrTxClosed
	}
	return t.Tx.CopyFrom(ctx, table, columns, rows)
}

func (t *heldTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.left.Load() {
		return leftResults{}
	}
	return t.Tx.SendBatch(ctx, b)
}

func (t *heldTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if t.left.Load() {
		return nil, pgx.ErrTxClosed
	}
	return t.Tx.Prepare(ctx, name, sql)
}

func (t *heldTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if t.left.Load() {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	return t.Tx.Exec(ctx, sql, args...)
}

func (t *heldTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if t.left.Load() {
		return leftRows{}, pgx.ErrTxClosed
	}
	return t.Tx.Query(ctx, sql, args...)
}

func (t *heldTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if t.left.Load() {
		return leftRows{}
	}
	return t.Tx.QueryRow(ctx, sql, args...)
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
