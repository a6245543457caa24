// Package sqltx gives pgx.Tx and *sql.Tx one face, for code that runs its
// statements in whichever transaction the caller has.
package sqltx

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
)

// Tx is a transaction that somebody else begins and ends. Arguments are plain
// values that both drivers take: integers, strings, []byte, bool, time.Time.
type Tx interface {
	// Exec returns the number of rows affected.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	QueryRow(ctx context.Context, query string, args ...any) Row
}

// Row is one result row.
type Row interface {
	Scan(dest ...any) error
}

// Pgx wraps a pgx.Tx.
func Pgx(tx pgx.Tx) Tx { return pgxTx{tx} }

// SQL wraps a *sql.Tx.
func SQL(tx *sql.Tx) Tx { return sqlTx{tx} }

type pgxTx struct{ tx pgx.Tx }

func (t pgxTx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := t.tx.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t pgxTx) QueryRow(ctx context.Context, query string, args ...any) Row {
	return t.tx.QueryRow(ctx, query, args...)
}

type sqlTx struct{ tx *sql.Tx }

func (t sqlTx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (t sqlTx) QueryRow(ctx context.Context, query string, args ...any) Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}
