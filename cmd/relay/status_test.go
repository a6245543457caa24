package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/migrate"
)

// outboxAs is the URL of a migrated database, for the relay's role with the
// printed grants, and a superuser's connection to it.
func outboxAs(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	u, err := url.Parse(pgtest.URL(t))
	require.NoError(t, err)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, u.String())
	require.NoError(t, err)
	require.NoError(t, migrate.Outbox("").Up(ctx, conn))
	for _, role := range []string{"outbox_writer", "outbox_relay"} {
		_, err := conn.Exec(ctx, fmt.Sprintf(`DO $$ BEGIN CREATE ROLE %s LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`, role))
		require.NoError(t, err)
	}
	grants, err := migrate.Outbox("").Grants(migrate.Roles{})
	require.NoError(t, err)
	_, err = conn.Exec(ctx, grants)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(ctx) })
	u.User = url.User("outbox_relay")
	return u.String(), conn
}

// One daemon, three databases: two are served, the third was never migrated.
func TestSeveralDatabasesAreServed(t *testing.T) {
	t.Parallel()
	first, firstConn := outboxAs(t)
	second, secondConn := outboxAs(t)
	brokers := svctest.Kafka(t)
	path := writeConfig(t, fmt.Sprintf(`lease: 2s
databases:
  - {name: first, url: %q}
  - {name: bare, url: %q}
  - {name: second, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: [%q]}
    filter: {topics: [nothing]}
`, first, pgtest.URL(t), second, brokers[0]))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	served := func(conn *pgx.Conn) bool {
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM outbox.lease WHERE owner <> ''`).Scan(&n))
		return n == 64
	}
	require.Eventually(t, func() bool { return served(firstConn) && served(secondConn) }, 30*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "NOT SERVED") }, 30*time.Second, 50*time.Millisecond)
	require.Contains(t, log.String(), "database=bare")

	out, code := runRelay(t, "status", "--config", path, "--json")
	require.Equal(t, 1, code, out)
	lines := strings.Split(out, "\n")
	for i, name := range []string{"first", "bare", "second"} {
		var st struct {
			Database, Error string
			Pipelines       []struct {
				Name    string
				Backlog *int64
				Owners  []struct{ Shards int }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(lines[i]), &st), lines[i])
		require.Equal(t, name, st.Database)
		if name == "bare" {
			require.Contains(t, st.Error, "relay migrate up")
			continue
		}
		require.Empty(t, st.Error)
		require.Equal(t, "kafka", st.Pipelines[0].Name)
		require.NotNil(t, st.Pipelines[0].Backlog)
		require.Equal(t, 64, st.Pipelines[0].Owners[0].Shards)
	}
	require.Contains(t, out, "1 of 3 databases gave no status")
	out, code = runRelay(t, "status", "--config", path, "--database", "second")
	require.Zero(t, code, out)
	for _, want := range []string{"Database second", "64 of 64", "valid for", "(current)"} {
		require.Contains(t, out, want)
	}
	t.Logf("\n%s", out)

	out, code = runRelay(t, "pipeline", "drop", "kafka", "--config", path, "--database", "first", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, out, "a live relay holds the pipeline")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), "not all were served")
	require.Contains(t, log.String(), "1 of 3 databases were not served: database bare:")

	requirePipelineIsDropped(t, path)
}

// requirePipelineIsDropped lists and drops the pipeline of the first database.
func requirePipelineIsDropped(t *testing.T, path string) {
	t.Helper()
	out, code := runRelay(t, "pipeline", "list", "--config", path)
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "--database")
	out, code = runRelay(t, "pipeline", "list", "--config", path, "--database", "first")
	require.Zero(t, code, out)
	require.Contains(t, out, "0 of 64")
	out, code = runRelay(t, "pipeline", "drop", "kafka", "--config", path, "--database", "first")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "--yes")
	out, code = runRelay(t, "pipeline", "drop", "kafka", "--config", path, "--database", "first", "--dry-run", "--json")
	require.Zero(t, code, out)
	require.Contains(t, out, `"dropped":false,"dry_run":true`)
	out, code = runRelay(t, "pipeline", "drop", "kafka", "--config", path, "--database", "first", "--yes")
	require.Zero(t, code, out)
	out, code = runRelay(t, "pipeline", "list", "--json", "--config", path, "--database", "first")
	require.Zero(t, code, out)
	require.Equal(t, "[]\n", out)
	out, code = runRelay(t, "pipeline", "drop", "kafka", "--config", path, "--database", "first", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, out, "no such pipeline is registered")
}
