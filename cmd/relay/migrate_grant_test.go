package main

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestMigrateUpGrants(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	var database string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&database))
	// Roles belong to the server, which tests share.
	writer, relay, consumer := database+"_writer", database+"_relay", database+"_consumer"
	roles := []string{"--writer", writer, "--relay", relay, "--consumer", consumer, "--database-url", url}

	out, code := runRelay(t, append([]string{"migrate", "up", "--grant"}, roles...)...)
	require.Equal(t, 1, code)
	require.Contains(t, out, `role "`+writer+`" does not exist`)
	require.Contains(t, out, "CREATE ROLE")

	for _, role := range []string{writer, relay, consumer} {
		_, err := conn.Exec(t.Context(), `CREATE ROLE `+role)
		require.NoError(t, err)
		t.Cleanup(func() { dropRole(t, url, role) })
	}
	for _, set := range []string{"outbox", "inbox", "outbox"} { // again: changes nothing
		out, code = runRelay(t, append([]string{"migrate", "up", set, "--grant"}, roles...)...)
		require.Zero(t, code, out)
		require.Contains(t, out, "version 1 of 1")
	}
	for privilege, role := range map[string]string{
		"has_column_privilege($1, 'outbox.event', 'payload', 'INSERT')": writer,
		"has_table_privilege($1, 'outbox.position', 'INSERT')":          relay,
		"has_table_privilege($1, 'inbox.dead', 'INSERT')":               consumer,
		"NOT has_table_privilege($1, 'outbox.event', 'UPDATE')":         relay,
	} {
		var has bool
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT `+privilege, role).Scan(&has))
		require.True(t, has, "%s %s", role, strings.TrimSpace(privilege))
	}
}

// dropRole runs before the database goes, with which the role's grants would go.
func dropRole(t *testing.T, url, role string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `DROP OWNED BY `+role+`; DROP ROLE `+role)
	require.NoError(t, err)
}
