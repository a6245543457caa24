package migrate_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// relations is what a schema holds, read from the catalogue.
func relations(t *testing.T, conn *pgx.Conn, schema string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT c.relkind::text || ' ' || c.relname FROM pg_class c
		WHERE c.relnamespace = $1::regnamespace UNION ALL
		SELECT 'f ' || proname FROM pg_proc WHERE pronamespace = $1::regnamespace ORDER BY 1`, schema)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

func sets() map[string]migrate.Set {
	return map[string]migrate.Set{
		"outbox":      migrate.Outbox(""),
		"inbox":       migrate.Inbox(""),
		"shop_outbox": migrate.Outbox("shop_outbox"),
		"shop_inbox":  migrate.Inbox("shop_inbox"),
	}
}

func TestUpDownUp(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.URL(t))
	ctx := t.Context()
	for schema, set := range sets() {
		require.Equal(t, schema, set.Schema())
		before, err := set.Status(ctx, conn)
		require.NoError(t, err)
		require.Zero(t, before.Current)
		require.NotEmpty(t, before.Pending)

		require.NoError(t, set.Up(ctx, conn))
		first := relations(t, conn, schema)
		status, err := set.Status(ctx, conn)
		require.NoError(t, err)
		require.Equal(t, status.Latest, status.Current)
		require.Empty(t, status.Pending)
		require.NoError(t, set.Up(ctx, conn), "a second run does nothing")

		require.NoError(t, set.Down(ctx, conn, 0))
		require.Equal(t, []string{"r schema_version"}, relations(t, conn, schema), "nothing is left behind")
		require.NoError(t, set.Up(ctx, conn))
		require.Equal(t, first, relations(t, conn, schema))
		require.ErrorContains(t, set.Down(ctx, conn, 99), "version 99")
	}
}

// An uncommitted schema of the same name holds all processes up at their first
// change, so that they go on together: without the lock all but one then fail on
// the schema that the fastest made.
func TestManyProcessesMayMigrateAtOnce(t *testing.T) {
	t.Parallel()
	const processes = 6
	ctx, url := t.Context(), pgtest.URL(t)
	gate, watch := connect(t, url), connect(t, url)
	var conns []*pgx.Conn
	for range processes {
		conns = append(conns, connect(t, url))
	}
	for schema, set := range sets() {
		tx, err := gate.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `CREATE SCHEMA `+schema)
		require.NoError(t, err)
		var g errgroup.Group
		for _, conn := range conns {
			g.Go(func() error { return set.Up(ctx, conn) })
		}
		require.Eventually(t, func() bool {
			var waiting int
			err := watch.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
			return err == nil && waiting == processes
		}, 30*time.Second, 5*time.Millisecond, "all processes should be under way")
		require.NoError(t, tx.Rollback(ctx))
		require.NoError(t, g.Wait())
		status, err := set.Status(ctx, watch)
		require.NoError(t, err)
		require.Empty(t, status.Pending)
	}
}

// The printed SQL is for teams with a migration tool of their own: it must leave
// the same database as Up, and Up must accept it as done.
func TestSQLIsTheSameAsUp(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	up, printed := connect(t, pgtest.URL(t)), connect(t, pgtest.URL(t))
	for schema, set := range sets() {
		require.NoError(t, set.Up(ctx, up))
		sql, err := set.SQL(ctx)
		require.NoError(t, err)
		_, err = printed.Exec(ctx, sql)
		require.NoError(t, err)
		require.Equal(t, relations(t, up, schema), relations(t, printed, schema))
		require.NoError(t, set.Up(ctx, printed))
	}
}

func TestGrantsNameTheRoles(t *testing.T) {
	t.Parallel()
	grants, err := migrate.Outbox("").Grants(migrate.Roles{Writer: `odd"name`})
	require.NoError(t, err)
	require.Contains(t, grants, `TO "odd""name"`)
	require.Contains(t, grants, `TO "outbox_relay"`)
	grants, err = migrate.Inbox("x").Grants(migrate.Roles{})
	require.NoError(t, err)
	require.Contains(t, grants, `TO "inbox_consumer"`)
	require.True(t, strings.Contains(grants, "x."))
}

func TestBadSchemaName(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.URL(t))
	for _, bad := range []string{"Outbox", "a b", "x;drop", "1a", strings.Repeat("a", 41)} {
		require.ErrorContains(t, migrate.Outbox(bad).Up(t.Context(), conn), "lower-case letters")
		_, err := migrate.Outbox(bad).SQL(t.Context())
		require.ErrorContains(t, err, "lower-case letters")
	}
}
