package relay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// TestAGapInTheIdsIsSkipped has a log with a gap that would take for ever page by
// page, as a pipeline meets one before the oldest event that is retained.
func TestAGapInTheIdsIsSkipped(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 60 {
		db.write(t, fmt.Sprint("k", i%7), fmt.Sprint(i))
		if i%20 == 10 {
			db.exec(t, `SELECT setval('outbox.event_id_seq', pg_sequence_last_value('outbox.event_id_seq') + (1::bigint << 40))`)
		}
	}
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows = 5
	stop := running(t, r)
	eventually(t, r.caughtUp, "caught up")
	require.NoError(t, stop())
	require.Len(t, p.messages(), 60)
}

// TestAPageIsCheapWithoutStatistics plans the page query on a backlog that Postgres
// has never analysed, for which it may choose to sort: not more than two pages.
func TestAPageIsCheapWithoutStatistics(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for slot := range 8 {
		db.exec(t, fmt.Sprintf(`ALTER TABLE outbox.event_%d SET (autovacuum_enabled = off)`, slot))
	}
	const backlog, rows = 50_000, 500
	db.exec(t, `INSERT INTO outbox.event (topic, key, type, source) SELECT 't', 'k' || g % 100, 'y', 's' FROM generate_series(1, $1::int) g`, backlog)
	seen := scan[string](t, db.admin, `SELECT pg_current_snapshot()::text`)
	h := scan[int64](t, db.admin, `SELECT max(id) FROM outbox.event`)
	r := newRelay(t, db.relay, config(&recorder{}))
	r.tune.pageRows = rows
	s := &session{engine: &engine{r: r}}
	at := position{h2: h, c: 1000}
	// The plan that Postgres may choose: it sorts what lies within the bound.
	tx, err := db.admin.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(t.Context()) //nolint:errcheck // nothing to keep
	_, err = tx.Exec(t.Context(), `SET LOCAL enable_indexscan = off`)
	require.NoError(t, err)
	lines, err := tx.Query(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF) "+newQueries("outbox").fresh,
		pgx.QueryExecModeExec, seen, s.window(at, allShards), at.c, []int16(nil), rows, int64(1<<20))
	require.NoError(t, err)
	plan, err := pgx.CollectRows(lines, pgx.RowTo[string])
	require.NoError(t, err)
	text := strings.Join(plan, "\n")
	require.NotContains(t, text, fmt.Sprintf("rows=%d loops", backlog-1000), text)
	require.Contains(t, text, "Sort")
	require.Contains(t, text, fmt.Sprintf("rows=%d loops", 2*rows), text)
}
