package main

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestMigrateCommands(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for _, set := range []string{"outbox", "inbox"} {
		out, code := runRelay(t, "migrate", "status", set, "--json", "--database-url", url)
		require.Zero(t, code, out)
		require.Contains(t, out, `"current":0`)
		out, code = runRelay(t, "migrate", "up", set, "--database-url", url)
		require.Zero(t, code, out)
		require.Contains(t, out, "schema "+set+": version 1 of 1")
		out, code = runRelay(t, "migrate", "down", set, "--database-url", url)
		require.Equal(t, exitUsage, code)
		require.Contains(t, out, "--yes")
		out, code = runRelay(t, "migrate", "down", set, "--to", "0", "--yes", "--database-url", url)
		require.Zero(t, code, out)
		require.Contains(t, out, "version 0 of 1")
		out, code = runRelay(t, "migrate", "sql", set, "--relay", "my_relay", "--consumer", "my_consumer")
		require.Zero(t, code, out)
		require.Contains(t, out, "CREATE TABLE "+set+".")
		require.Contains(t, out, `TO "my_`)
	}
	out, code := runRelay(t, "migrate", "up", "shop", "--database-url", url)
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `"shop" is not known: use outbox or inbox`)
}

func TestRunRefusesABadConfig(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, "database: {url: 'postgres://u:hunter2@127.0.0.1:1/d'}\npipelines:\n  - name: x\n    kafak: {brokers: [a]}\n")
	out, code := runRelay(t, "run", "--config", path)
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `relay.yaml:4: unknown field "kafak" in pipelines[0]: did you mean kafka?`)
	require.NotContains(t, out, "hunter2")
}

func TestRunSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n", pgtest.URL(t)))
	out, code := runRelay(t, "run", "--config", path)
	require.Equal(t, 1, code)
	require.Contains(t, out, "relay migrate up")
}

// A broker that accepts connections and never answers is the worst case for
// draining: something is in flight and will not resolve.
func TestSIGTERMDrainsWithinTheDeadline(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ('orders', 'k', 't', 's', '{}')`)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	connected := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			connected <- c // kept open, never answered
		}
	}()

	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\ndrain_timeout: 1s\npipelines:\n  - name: x\n    kafka: {brokers: [%q]}\n", url, silent.Addr()))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	select {
	case <-connected:
	case <-time.After(30 * time.Second):
		t.Fatalf("the relay never called the broker:\n%s", log.String())
	}
	began := time.Now()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "exit code 0:\n%s", log.String())
	// Stated: drain_timeout, and up to 5 s for bookkeeping.
	require.Less(t, time.Since(began), 6*time.Second+2*time.Second, log.String())
	require.Contains(t, log.String(), "drained and stopped")
}
