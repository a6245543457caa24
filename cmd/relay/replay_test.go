package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
)

// A replay process is killed and another one goes on: nothing is missing, order
// holds, and what went out again is marked.
func TestReplayKilledAndResumed(t *testing.T) {
	t.Parallel()
	const events = 300
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 'orders', 'k', 'placed', '/shop', convert_to(g::text, 'UTF8') FROM generate_series(0, $1) g`, events-1)
	require.NoError(t, err)
	broker := svctest.FakeKafka(t, kfake.SeedTopics(1, "orders")).ListenAddrs()[0]
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: [%q]}\n", url, broker))
	replay := func(args ...string) (string, int) {
		return runRelay(t, append([]string{"replay", "--config", path}, args...)...)
	}

	requireMistakesAreNamed(t, replay)

	var log output
	cmd := command(t, &log, "replay", "--config", path, "--pipeline", "x", "--reason", "a test", "--rate", "100", "--json")
	require.NoError(t, cmd.Start())
	var id string
	require.Eventually(t, func() bool {
		var n int
		err := conn.QueryRow(t.Context(), `SELECT id::text, published FROM outbox.replay`).Scan(&id, &n)
		return err == nil && n >= 150
	}, 30*time.Second, 5*time.Millisecond, log.String())
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
	require.Contains(t, log.String(), `"remaining":`)

	out, code = replay("--resume", id)
	require.Zero(t, code, out)
	require.Contains(t, out, "replay "+id+" done")
	require.NotContains(t, out, "\x1b", "no terminal")
	out, code = replay("--resume", id)
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "has ended")
	out, code = replay("--list")
	require.Zero(t, code, out)
	require.Contains(t, out, "a test")
	out, code = replay("--list", "--json")
	require.Zero(t, code, out)
	var info relay.ReplayInfo
	require.NoError(t, json.Unmarshal([]byte(strings.TrimSpace(out)), &info))
	require.Equal(t, "done", info.State)

	requireReplayed(t, consumed(t, broker, events-1), id, events)
}

func requireMistakesAreNamed(t *testing.T, replay func(args ...string) (string, int)) {
	t.Helper()
	for want, args := range map[string][]string{
		"--pipeline is empty":                        {"--reason", "r"},
		"--reason is empty":                          {"--pipeline", "x"},
		`--pipeline "y" is not a pipeline`:           {"--pipeline", "y", "--reason", "r"},
		`--to "y" is not a pipeline`:                 {"--pipeline", "x", "--to", "y", "--reason", "r"},
		"--rate 0 is not positive":                   {"--pipeline", "x", "--reason", "r", "--rate", "0"},
		`--from: "noon" is neither a time`:           {"--pipeline", "x", "--reason", "r", "--from", "noon"},
		`--resume "1": no such replay: see relay`:    {"--resume", "1"},
		`relay.yaml: no such file or directory`:      {"--config", "/nowhere/relay.yaml"},
		"300 events would be published, in about 3s": {"--pipeline", "x", "--dry-run", "--rate", "100"},
	} {
		out, _ := replay(args...)
		require.Contains(t, out, want)
	}
}

// requireReplayed: each event is there, first publications are in order, all are
// marked, and only a bounded number came twice.
func requireReplayed(t *testing.T, messages []*sarama.ConsumerMessage, id string, events int) {
	t.Helper()
	next, again := 0, 0
	for _, m := range messages {
		var n int
		_, err := fmt.Sscan(string(m.Value), &n)
		require.NoError(t, err)
		require.LessOrEqual(t, n, next, "nothing is missing, first publications are in order")
		if n == next {
			next++
		} else {
			again++
		}
		marked := false
		for _, h := range m.Headers {
			marked = marked || string(h.Key) == relay.HeaderReplayID && string(h.Value) == id
		}
		require.True(t, marked)
	}
	require.Equal(t, events, next)
	require.LessOrEqual(t, again, 100, "what is repeated is bounded")
}

// consumed reads the topic up to the message with the number last.
func consumed(t *testing.T, broker string, last int) (list []*sarama.ConsumerMessage) {
	t.Helper()
	consumer, err := sarama.NewConsumer([]string{broker}, nil)
	require.NoError(t, err)
	defer consumer.Close()
	part, err := consumer.ConsumePartition("orders", 0, sarama.OffsetOldest)
	require.NoError(t, err)
	defer part.Close()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case m := <-part.Messages():
			list = append(list, m)
			if string(m.Value) == fmt.Sprint(last) {
				return list
			}
		case <-timeout:
			t.Fatalf("only %d messages", len(list))
		}
	}
}
