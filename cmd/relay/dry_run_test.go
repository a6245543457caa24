package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func dryRun(t *testing.T, want string, args ...string) {
	t.Helper()
	out, code := runRelay(t, append(args, "--dry-run")...)
	require.Zero(t, code, out)
	require.Contains(t, out, want)
}

func oneText(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&text))
	return text
}

// Those of filter, drop, replay and dlq are in the tests of these commands. A --yes
// beside it, from the shell's history, changes nothing either.
func TestDryRunOfMigrations(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	const tables = `SELECT count(*)::text FROM pg_tables WHERE schemaname = 'inbox'`
	dryRun(t, "pending: ", "migrate", "up", "inbox", "--database-url", url)
	require.Equal(t, "0", oneText(t, conn, tables))
	out, code := runRelay(t, "migrate", "up", "inbox", "--database-url", url)
	require.Zero(t, code, out)
	before := oneText(t, conn, tables)
	require.NotEqual(t, "0", before)
	dryRun(t, "would go back from version 1 to 0, and drop the tables with all events", "migrate", "down", "inbox", "--to", "0", "--yes", "--database-url", url)
	dryRun(t, `{"schema":"inbox","current":1,"to":0,"dry_run":true}`, "migrate", "down", "inbox", "--json", "--database-url", url)
	dryRun(t, "version 1, nothing to do", "migrate", "down", "inbox", "--to", "1", "--database-url", url)
	require.Equal(t, before, oneText(t, conn, tables))
}

func TestDryRunOfRebase(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	_, err := conn.Exec(t.Context(), `INSERT INTO outbox.pipeline (name) VALUES ('one'), ('two');
INSERT INTO outbox.event (topic, source, type, payload) VALUES ('t', 's', 'x', '{}')`)
	require.NoError(t, err)
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines: [{name: one, kafka: {brokers: ['127.0.0.1:1']}}]\n", url))
	const all = `SELECT concat((SELECT json_agg(e) FROM outbox.event e), (SELECT json_agg(p) FROM outbox.position p), (SELECT json_agg(m) FROM outbox.meta m), (SELECT last_value FROM outbox.slot_seq))`
	before := oneText(t, conn, all)
	dryRun(t, "the positions of 2 pipelines would be rewritten: one, two", "rebase", "--yes", "--config", path)
	dryRun(t, `{"rebased":false,"dry_run":true,"pipelines":["one","two"]}`, "rebase", "--json", "--config", path)
	require.Equal(t, before, oneText(t, conn, all))
}

func TestDryRunOfSchemaRegister(t *testing.T) {
	dir := shop(t)
	url, conn := outboxAs(t)
	dryRun(t, "shop.OrderPlaced: may be added", "schema", "register", dir)
	frozen, err := filepath.Glob(filepath.Join(dir, "*.v*.avsc"))
	require.NoError(t, err)
	require.Empty(t, frozen)
	dryRun(t, "may be added", "schema", "register", dir, "--log", url)
	require.Equal(t, "0", oneText(t, conn, `SELECT count(*)::text FROM outbox.schema`))

	out, code := runRelay(t, "schema", "register", dir)
	require.Zero(t, code, out)
	writeFile(t, filepath.Join(dir, "order.avsc"), `{"type": "record", "name": "shop.OrderPlaced", "fields": [{"name": "other", "type": "long"}]}`)
	out, code = runRelay(t, "schema", "register", dir, "--dry-run")
	require.Equal(t, exitFailed, code, "it says whether it may be added: %s", out)
	_, err = os.Stat(filepath.Join(dir, "order.v2.avsc"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
