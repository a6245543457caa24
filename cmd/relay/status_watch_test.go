package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/relay"
)

// Lines for a pipe: it goes on over a database that does not answer, shows what has
// changed, and ends well.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	for _, statement := range []string{
		`INSERT INTO outbox.pipeline (name) VALUES ('x')`,
		`INSERT INTO outbox.lease (pipeline, shard, owner) SELECT 'x', g, 'a' FROM generate_series(0, 63) g`,
		`INSERT INTO outbox.position (pipeline, shards, owner, s, h, b) SELECT 'x', array_agg(g::smallint), '', '3:3:'::pg_snapshot, 0, '3'::xid8 FROM generate_series(0, 63) g`,
		`INSERT INTO outbox.instance (name, pipelines, report, expires_at) VALUES ('a', '{x}', '{"x": {"rate": 12.5, "circuit": "open"}}', clock_timestamp() + interval '1 hour')`,
		`INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, state, blocks)
SELECT 'x', outbox.uuid_v7(), 't', 't', 'k', 'x', '/', now(), (ARRAY['dead', 'blocked'])[g], true FROM generate_series(1, 2) g`,
	} {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	path := writeConfig(t, fmt.Sprintf(`databases: [{name: shop, url: %q}, {name: bare, url: %q}]
pipelines: [{name: x, kafka: {brokers: ['127.0.0.1:1']}}]
`, url, pgtest.URL(t)))
	for _, asJSON := range []bool{false, true} {
		args := []string{"status", "--config", path, "--watch", "--every", "50ms"}
		if asJSON {
			args = append(args, "--json")
		}
		var out output
		cmd := command(t, &out, args...)
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool { return strings.Count(out.String(), "shop") >= 2 }, 30*time.Second, 10*time.Millisecond)
		want := backlogOf(t, out.String(), asJSON) + 1
		writeEvent(t, conn, "orders", "k")
		require.Eventually(t, func() bool { return backlogOf(t, out.String(), asJSON) == want }, 30*time.Second, 10*time.Millisecond)
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		require.NoError(t, cmd.Wait(), out.String())
		text := out.String()
		require.Contains(t, text, "relay migrate up", "the other database")
		require.NotContains(t, text, "\x1b")
		if !asJSON {
			for _, want := range []string{
				"database=shop pipeline=x backlog=", "rate=12.5/s shards=64/64 owners=a(64)", `circuits="broker open (a)"`, "dead=1 retrying=0 blocked=1 blocked_keys=1", "database=bare error=",
			} {
				require.Contains(t, text, want)
			}
		}
	}
	out, code := runRelay(t, "status", "--config", path, "--watch", "--every", "0s")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "--every 0s is not a positive duration")
}

// backlogOf is the latest backlog of pipeline x that was printed in a whole line.
func backlogOf(t *testing.T, out string, asJSON bool) (backlog int64) {
	t.Helper()
	for line := range strings.Lines(out[:strings.LastIndex(out, "\n")+1]) {
		if !strings.Contains(line, "shop") {
			continue
		}
		if asJSON {
			var st databaseStatus
			require.NoError(t, json.Unmarshal([]byte(line), &st))
			backlog = st.Pipelines[0].Backlog
			continue
		}
		_, rest, _ := strings.Cut(line, "backlog=")
		_, err := fmt.Sscanf(rest, "%d", &backlog)
		require.NoError(t, err, line)
	}
	return backlog
}

// A frame fits the window and leaves nothing of the one before.
func TestRedraw(t *testing.T) {
	t.Parallel()
	require.Equal(t, "\x1b[2J\x1b[Habc\x1b[K\r\nlong …\x1b[K\r\n\x1b[J", redraw("abc\nlong line\n", 6, 10, true))
	got := redraw("1\n2\n3\n4\n5\n", 200, 4, false)
	require.Equal(t, "\x1b[H1\x1b[K\r\n2\x1b[K\r\n… 3 more lines: make the window higher, or choose one with --database\x1b[K\r\n\x1b[J", got)
	require.NotPanics(t, func() { redraw("1\n2\n", 1, 0, false) })
}

func TestShortStatus(t *testing.T) {
	t.Parallel()
	s := databaseStatus{Database: "shop", Status: &relay.Status{Pipelines: []relay.PipelineStatus{{
		Name: "kafka", Backlog: 7, BacklogExact: true, Parked: relay.ParkedStatus{Dead: 1, Blocked: 4, BlockedKeys: 2, Exact: true},
	}}}}
	for _, want := range []string{"Database shop", "kafka", "1 dead, 0 retrying, 4 blocked (2 keys stand still)"} {
		require.Contains(t, s.short(), want)
	}
	require.Contains(t, databaseStatus{Error: "gone"}.short(), "gone")
}
