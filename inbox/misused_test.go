package inbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// Rows that a handler left open are its mistake, not an outage.
func TestRowsLeftOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(message("a", 1))
	in := w.start(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
		_, err := tx.Query(ctx, `SELECT generate_series(1, 100000)`) //nolint:rowserrcheck,sqlclosecheck // the mistake
		return err
	})
	eventually(t, "a dead letter", func() bool { return len(w.dead()) == 1 })
	require.Equal(t, "attempts", w.dead()[0].Reason)
	require.Contains(t, w.dead()[0].Error, "close a query's rows")
	require.NoError(t, in.end())
}
