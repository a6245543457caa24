package inbox_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

const manyRows = `SELECT generate_series(1, 100000)`

// Rows that a handler left open are its mistake, not an outage, in a batch and in
// a redrive as well.
func TestRowsLeftOpen(t *testing.T) {
	t.Parallel()
	leave := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Query(ctx, manyRows) //nolint:rowserrcheck,sqlclosecheck // the mistake
		return err
	}
	for name, register := range map[string]func(*inbox.Inbox){
		"one": func(in *inbox.Inbox) {
			inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error { return leave(ctx, tx) })
		},
		"batch": func(in *inbox.Inbox) {
			inbox.OnBatch(in, placed, func(ctx context.Context, tx pgx.Tx, _ []inbox.Event[order]) error { return leave(ctx, tx) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.publish(message("a", 1), message("a", 2), message("b", 3))
			in, err := inbox.New(w.pool, w.config("inventory"))
			require.NoError(t, err)
			inbox.LookEvery(in, 5*time.Millisecond)
			register(in)
			r := run(t, in)
			eventually(t, "dead letters", func() bool { return len(w.dead()) == 3 })
			require.Equal(t, "attempts", w.dead()[0].Reason)
			require.Contains(t, w.dead()[0].Error, "close a query's rows")
			attempts := w.dead()[0].Attempts
			w.redrive(inbox.DeadFilter{Class: "attempts"})
			eventually(t, "the redrive to fail", func() bool { return w.dead()[0].Attempts > attempts })
			require.Contains(t, w.dead()[0].Error, "close a query's rows")
			require.NoError(t, r.end())
		})
	}
}

// database/sql closes the rows itself.
func TestRowsLeftOpenOverSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(message("a", 1))
	in, err := inbox.New(w.pool, w.config("inventory"))
	require.NoError(t, err)
	inbox.OnSQL(in, placed, func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO effect (id) VALUES ($1)`, e.ID); err != nil {
			return err
		}
		_, err := tx.QueryContext(ctx, manyRows) //nolint:rowserrcheck,sqlclosecheck // the mistake
		return err
	})
	r := run(t, in)
	eventually(t, "its effect", func() bool { return w.effects() == 1 })
	w.settled("inventory")
	require.NoError(t, r.end())
}
