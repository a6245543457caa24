package outboxtest

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Log is a part of an outbox's log. It goes wherever a db is asked for.
type Log struct {
	schema string
	query  queryFunc
	own    bool   // of one transaction
	mark   string // what was there before: an id in a transaction, else a snapshot; "" = nothing
}

// queryFunc is Query of pgx and QueryContext of database/sql.
type queryFunc func(ctx context.Context, query string, args ...any) (rows, func(), error)

// rows are pgx.Rows or *sql.Rows.
type rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}

// In returns the log of the outbox in a schema that is not called "outbox".
func In(t testing.TB, schema string, db any) Log {
	t.Helper()
	l := open(t, db)
	l.schema = schema
	return l
}

// Mark returns the log from here on: of a pool or connection, what commits after
// this call, also if it was written before; of a transaction, what it writes
// after this call.
func Mark(t testing.TB, db any) Log {
	t.Helper()
	l := open(t, db)
	query := `SELECT pg_current_snapshot()::text`
	if l.own {
		query = fmt.Sprintf(`SELECT coalesce(max(id), 0)::text FROM %s.event WHERE xid = pg_current_xact_id_if_assigned()`, l.name())
	}
	err := l.each(t.Context(), query, nil, func(r rows) error { return r.Scan(&l.mark) })
	if err != nil {
		t.Fatalf("outboxtest: mark: %v%s", err, l.hint())
	}
	return l
}

func open(t testing.TB, db any) Log {
	t.Helper()
	const schema = "outbox"
	switch db := db.(type) {
	case Log:
		return db
	case pgx.Tx:
		return Log{schema: schema, query: pgxQuery(db.Query), own: true}
	case *pgxpool.Pool:
		return Log{schema: schema, query: pgxQuery(db.Query)}
	case *pgx.Conn:
		return Log{schema: schema, query: pgxQuery(db.Query)}
	case *sql.Tx:
		return Log{schema: schema, query: sqlQuery(db.QueryContext), own: true}
	case *sql.DB:
		return Log{schema: schema, query: sqlQuery(db.QueryContext)}
	case *sql.Conn:
		return Log{schema: schema, query: sqlQuery(db.QueryContext)}
	}
	t.Fatalf("outboxtest: db is a %T: it must be a pgx.Tx, *sql.Tx, *pgxpool.Pool, *pgx.Conn, *sql.DB, *sql.Conn or an outboxtest.Log", db)
	return Log{}
}

func pgxQuery(query func(context.Context, string, ...any) (pgx.Rows, error)) queryFunc {
	return func(ctx context.Context, text string, args ...any) (rows, func(), error) {
		r, err := query(ctx, text, args...)
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
}

func sqlQuery(query func(context.Context, string, ...any) (*sql.Rows, error)) queryFunc {
	return func(ctx context.Context, text string, args ...any) (rows, func(), error) {
		r, err := query(ctx, text, args...)
		if err != nil {
			return nil, nil, err
		}
		return r, func() { _ = r.Close() }, nil
	}
}

func (l Log) each(ctx context.Context, query string, args []any, scan func(rows) error) error {
	r, done, err := l.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer done()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// where is the condition on the rows e of event, with its arguments.
func (l Log) where() (string, []any) {
	switch {
	case l.own && l.mark != "":
		return `e.xid = pg_current_xact_id_if_assigned() AND e.id > $1::text::bigint`, []any{l.mark}
	case l.own:
		return `e.xid = pg_current_xact_id_if_assigned()`, nil
	case l.mark != "":
		return `NOT pg_visible_in_snapshot(e.xid, $1::text::pg_snapshot)`, []any{l.mark}
	}
	return `true`, nil
}

// name is the schema's, quoted.
func (l Log) name() string { return pgx.Identifier{l.schema}.Sanitize() }

// String says for people what part it is.
func (l Log) String() string {
	part := "committed"
	switch {
	case l.own && l.mark != "":
		part = "written in this transaction since the mark"
	case l.own:
		part = "written in this transaction"
	case l.mark != "":
		part = "committed since the mark"
	}
	return part + " to " + l.schema + ".event"
}

func (l Log) hint() string {
	return fmt.Sprintf("\n(is the schema %[1]q migrated, or is it called something else: outboxtest.In? may this role SELECT from %[1]s.event and %[1]s.schema?)", l.schema)
}
