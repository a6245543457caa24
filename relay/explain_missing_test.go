package relay

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

// What nobody can see: who may have it is named.
func TestExplainOpenTransactions(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.newID(t)
	tx := begin(t, db)
	_, err := tx.Exec(t.Context(), insertID, id, "k")
	require.NoError(t, err)
	// Another one that has not touched the log is none of our business.
	idle, err := db.admin.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = idle.Rollback(context.Background()) }()
	_, err = idle.Exec(t.Context(), `UPDATE outbox.meta SET shards = shards`)
	require.NoError(t, err)

	e := explained(t, db, id)
	require.Empty(t, e.Events)
	require.Equal(t, []string{WhyOpen}, kinds(e.Missing.Reasons))
	require.Len(t, e.Missing.Open, 1)
	open := e.Missing.Open[0]
	require.EqualValues(t, tx.Conn().PgConn().PID(), open.PID)
	require.Equal(t, "outbox_writer", open.User)
	require.NotEmpty(t, open.Transaction)
	require.Zero(t, open.Since, "the relay's role may not see that")
	require.Contains(t, e.Missing.Reasons[0].Text, "pg_read_all_stats")
	require.Contains(t, e.Missing.Reasons[0].Cure, "pg_terminate_backend")

	e, err = Explain(t.Context(), db.admin, ExplainConfig{ID: id})
	require.NoError(t, err)
	require.Len(t, e.Missing.Open, 1)
	require.WithinDuration(t, e.At, e.Missing.Open[0].Since, time.Minute)
	require.Equal(t, "idle in transaction", e.Missing.Open[0].State)
	require.Contains(t, e.Missing.Open[0].Query, "INSERT INTO outbox.event")

	// It began long after the id was drawn: another's.
	old := "01900000-0000-7000-8000-000000000000"
	e, err = Explain(t.Context(), db.admin, ExplainConfig{ID: old})
	require.NoError(t, err)
	require.Empty(t, e.Missing.Open)

	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, []string{WhyRolledBack}, kinds(explained(t, db, id).Missing.Reasons))
}

func TestExplainPreparedTransaction(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id, name := db.newID(t), "explained o'clock "+db.newID(t)
	quoted := strings.ReplaceAll(name, "'", "''")
	conn, err := db.admin.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `BEGIN`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), insertID, id, "k")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `PREPARE TRANSACTION '`+quoted+`'`)
	require.NoError(t, err)
	// Another one that has not touched the log is none of our business.
	_, err = conn.Exec(t.Context(), `BEGIN`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `UPDATE outbox.meta SET shards = shards`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `PREPARE TRANSACTION 'other `+quoted+`'`)
	require.NoError(t, err)
	e := explained(t, db, id)
	require.Len(t, e.Missing.Open, 1)
	require.Equal(t, name, e.Missing.Open[0].Prepared)
	require.Contains(t, e.Missing.Reasons[0].Cure, "ROLLBACK PREPARED '"+quoted+"'")
	_, err = conn.Exec(t.Context(), `ROLLBACK PREPARED 'other `+quoted+`'`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `COMMIT PREPARED '`+quoted+`'`)
	require.NoError(t, err)
	require.Len(t, explained(t, db, id).Events, 1)
}

func TestExplainTruncated(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.writeID(t, "k")
	db.exec(t, `TRUNCATE outbox.event`)
	require.Equal(t, []string{WhyRolledBack}, kinds(explained(t, db, id).Missing.Reasons), "an empty log tells nothing of its past")
	db.write(t, "k", "later")
	e := explained(t, db, id)
	require.Equal(t, []string{WhyTruncated}, kinds(e.Missing.Reasons))
	require.True(t, e.Missing.DrawnAt.Before(e.Missing.OldestAt))
}

// Ids as people copy them.
func TestExplainIDs(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for range 50 {
		db.write(t, "k", "other")
	}
	id := db.writeID(t, "k")
	for range 50 {
		db.write(t, "k", "other")
	}
	// Cut off.
	require.Equal(t, id, explained(t, db, id[:30]).Events[0].EventID)
	// The beginning of several.
	e := explained(t, db, id[:8])
	require.Empty(t, e.Events)
	require.Equal(t, []string{WhyAlike}, kinds(e.Missing.Reasons))
	require.NotEmpty(t, e.Missing.Alike)
	// A slip in the end, and one in the time.
	slip := func(at int) string {
		digit := "0"
		if id[at] == '0' {
			digit = "1"
		}
		return id[:at] + digit + id[at+1:]
	}
	for _, at := range []int{35, 2} {
		e = explained(t, db, slip(at))
		require.Equal(t, WhyAlike, e.Missing.Reasons[0].Kind)
		require.True(t, slices.ContainsFunc(e.Missing.Alike, func(a EventStory) bool { return a.EventID == id }))
	}
	// An id that was drawn long before its event is found by the long way.
	old := "01900000-0000-7000-8000-000000000001"
	_, err := db.writer.Exec(t.Context(), insertID, old, "k")
	require.NoError(t, err)
	require.Len(t, explained(t, db, old).Events, 1)
	// Unless there is no time for it.
	e, err = Explain(t.Context(), db.relay, ExplainConfig{ID: old, ScanLimit: time.Nanosecond})
	require.NoError(t, err)
	require.Contains(t, kinds(e.Missing.Reasons), WhyNotSearched)
	// Two sources may have drawn the same.
	_, err = db.writer.Exec(t.Context(), `INSERT INTO outbox.event (event_id, topic, type, source) VALUES ($1::text::uuid, 't', 'test', '/other')`, id)
	require.NoError(t, err)
	require.Len(t, explained(t, db, id).Events, 2)
	e, err = Explain(t.Context(), db.relay, ExplainConfig{ID: id, Source: "/other"})
	require.NoError(t, err)
	require.Len(t, e.Events, 1)

	for _, bad := range []string{"", "0198f0c", "not an id", id + "0", "0198f0cg"} {
		_, err := Explain(t.Context(), db.relay, ExplainConfig{ID: bad})
		var fe *event.FieldError
		require.ErrorAs(t, err, &fe, bad)
	}
	_, err = Explain(t.Context(), db.relay, ExplainConfig{ID: id, Schema: "elsewhere"})
	require.ErrorIs(t, err, ErrNotMigrated)
	_, err = Explain(t.Context(), db.relay, ExplainConfig{ID: id, Schema: "No-Schema"})
	require.ErrorContains(t, err, "is not a schema name")
}

// The quick search finds the place in a log with holes, whatever its size.
func TestExplainBisects(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.event (topic, key, type, source, created_at)
SELECT 't', g::text, 'x', '/', clock_timestamp() - (2000 - g) * interval '1 minute' FROM generate_series(1, 2000) g`)
	db.exec(t, `DELETE FROM outbox.event WHERE id % 7 < 3`)
	x := explainer{pool: db.relay, cfg: ExplainConfig{Schema: "outbox"}}
	first, err := x.end(t.Context(), sqlExplainFirst)
	require.NoError(t, err)
	last, err := x.end(t.Context(), sqlExplainLast)
	require.NoError(t, err)
	for _, back := range []time.Duration{0, time.Minute, 17 * time.Hour, 400 * time.Hour} {
		at := scan[time.Time](t, db.admin, `SELECT clock_timestamp()`).Add(-back)
		got, err := x.idAt(t.Context(), first.id, last.id, at)
		require.NoError(t, err)
		var want *int64
		require.NoError(t, db.admin.QueryRow(t.Context(), `SELECT min(id) FROM outbox.event WHERE created_at >= $1`, at).Scan(&want))
		if want == nil {
			require.Equal(t, last.id+1, got)
			continue
		}
		require.LessOrEqual(t, got, *want)
		require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.event WHERE id >= $1 AND id < $2`, got, *want), "nothing but a hole lies between")
	}
}
