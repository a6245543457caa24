package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestDLQ(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.pipeline (name) VALUES ('x')`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks, class, reason, attempts)
SELECT 'x', outbox.uuid_v7(), 'orders', 'shop.orders', 'k' || g, 'placed', '/shop', now(), convert_to('payload ' || g, 'UTF8'), 'dead', true, 'rejected', E'too\x1blarge', 3
FROM generate_series(1, 3) g`)
	require.NoError(t, err)
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n", url))
	dlq := func(args ...string) (string, int) {
		return runRelay(t, append([]string{"dlq", "--config", path}, args...)...)
	}

	out, code = dlq("list", "--limit", "2")
	require.Zero(t, code, out)
	require.Contains(t, out, "too·large", "nothing steers the terminal")
	require.Contains(t, out, "--after 2")
	out, code = dlq("list", "--json", "--key", "k3")
	require.Zero(t, code, out)
	var e letter
	require.NoError(t, json.Unmarshal([]byte(out), &e))
	require.Equal(t, "dead", e.State)
	require.EqualValues(t, 3, e.N)
	out, code = dlq("show", "1")
	require.Zero(t, code, out)
	require.Contains(t, out, "payload 1")
	require.Contains(t, out, "shop.orders")

	for want, args := range map[string][]string{
		"no filter":                    {"redrive", "--reason", "r"},
		"--reason is empty":            {"discard", "--key", "k1"},
		`"x" is not an event's number`: {"show", "x"},
		"no parked event has this":     {"show", "99"},
		`--since: "yesterday"`:         {"list", "--since", "yesterday"},
		"is not a state":               {"list", "--state", "lost"},
		"--consumer is of an inbox":    {"list", "--consumer", "inventory"},
		"--rate -1 is negative":        {"discard", "--all", "--reason", "r", "--rate", "-1"},
		"has no list of inboxes":       {"list", "--inbox", "inventory"},
	} {
		out, code = dlq(args...)
		if want == "no parked event has this" || want == "is not a state" { // only the database knows
			require.Equal(t, exitFailed, code, out)
		} else {
			require.Equal(t, exitUsage, code, out)
		}
		require.Contains(t, out, want)
	}
	out, code = dlq("redrive", "--all", "--dry-run")
	require.Zero(t, code, out)
	require.Contains(t, out, "3 events would be redriven")
	out, code = dlq("redrive", "--key", "k1", "--reason", "topic mended", "--by", "ann", "--wait", "0")
	require.Zero(t, code, out)
	require.Contains(t, out, "1 events are to be redriven")
	out, code = dlq("redrive", "--key", "k1", "--reason", "topic mended", "--wait", "300ms")
	require.Equal(t, 1, code, "nobody publishes it")
	require.Contains(t, out, "1 events were to be redriven; with what followed behind them: 0 redriven, 1 still wait")
	require.Contains(t, out, "no relay has tried them")
	out, code = dlq("discard", "--n", "2", "--reason", "never needed", "--json")
	require.Zero(t, code, out)
	require.JSONEq(t, `{"action":"discard","dry_run":false,"events":1}`, out)
	var states string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT string_agg(state, ' ' ORDER BY n) FROM outbox.parked`).Scan(&states))
	require.Equal(t, "retrying discarded dead", states)
	out, code = dlq("list", "--state", "discarded")
	require.Zero(t, code, out)
	require.Contains(t, out, "k2")
}
