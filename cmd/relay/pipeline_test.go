package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// A changed filter stops the daemon, which names the command that accepts it.
func TestPipelineFilter(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	_, err := conn.Exec(t.Context(), `INSERT INTO outbox.pipeline (name, filter) VALUES ('x', '{"topics": ["a"]}')`)
	require.NoError(t, err)
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    filter: {topics: [a, b]}\n    kafka: {brokers: ['127.0.0.1:1']}\n", url))
	out, code := runRelay(t, "run", "--config", path)
	require.Equal(t, 1, code, out)
	require.Contains(t, out, `publishes topics ["a"], configured is topics ["a" "b"]`)
	require.Contains(t, out, "relay pipeline filter x")
	out, code = runRelay(t, "pipeline", "filter", "y", "--config", path)
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `"y" is not in the configuration`)
	out, code = runRelay(t, "pipeline", "filter", "x", "--dry-run", "--config", path)
	require.Zero(t, code, out)
	require.Contains(t, out, `pipeline x publishes topics ["a"], and would publish topics ["a" "b"]`)
	out, code = runRelay(t, "run", "--config", path)
	require.Equal(t, 1, code, "a dry run changes nothing: %s", out)
	out, code = runRelay(t, "pipeline", "filter", "x", "--config", path)
	require.Zero(t, code, out)
	require.Contains(t, out, `pipeline x publishes topics ["a" "b"]`)
	out, code = runRelay(t, "pipeline", "list", "--json", "--config", path)
	require.Zero(t, code, out)
	require.Contains(t, out, `"filter":{"topics":["a","b"]}`)
}
