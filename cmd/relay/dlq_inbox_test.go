package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// consumerDatabase has dead letters of two consumers: keys k0 to k3, of which k0 has
// an event behind it.
func consumerDatabase(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "inbox", "--database-url", url)
	require.Zero(t, code, out)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for _, statement := range []string{
		`INSERT INTO inbox.consumer (name, window_days) VALUES ('inventory', 7), ('billing', 7)`,
		`INSERT INTO inbox.dead (consumer, event_key, state, blocks, reason, error, attempts, topic, key, key_hash, id, source, type, content_type,
			correlation_id, causation_id, headers, payload, origin_broker, origin_topic, origin_partition, origin_offset)
		SELECT 1, gen_random_uuid(), CASE g WHEN 4 THEN 'blocked' ELSE 'dead' END, true, CASE g WHEN 4 THEN 'blocked' ELSE 'attempts' END, E'too\x1blate', 5,
			'orders', 'k' || g % 4, 1 + g % 4, 'id' || g, '/shop', 'placed', 'application/json', '', '', '{"a": "b"}', convert_to('{"n":' || g || '}', 'UTF8'),
			'kafka', 'orders', 3, g FROM generate_series(0, 4) g`,
		`INSERT INTO inbox.dead (consumer, event_key, state, blocks, reason, attempts, topic, key, key_hash, id, source, type, content_type,
			correlation_id, causation_id, headers, payload, origin_broker, origin_topic, origin_partition, origin_offset)
		VALUES (2, gen_random_uuid(), 'dead', true, 'undecodable', 0, 'orders', '', 0, '', '', '', '', '', '', '{}', '\x00ff01', 'kafka', 'orders', 3, 9)`,
	} {
		_, err := pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	return url, pool
}

func TestDLQOfAnInbox(t *testing.T) {
	t.Parallel()
	url, pool := consumerDatabase(t)
	path := writeConfig(t, fmt.Sprintf("inboxes:\n  - {name: stock, url: %q}\n", url))
	dlq := func(args ...string) (string, int) {
		return runRelay(t, append([]string{"dlq", "--config", path, "--inbox", "stock"}, args...)...)
	}
	out, code := dlq("list", "--limit", "5")
	require.Zero(t, code, out)
	require.Contains(t, out, "too·late", "nothing steers the terminal")
	require.Contains(t, out, "--after 5")
	out, code = runRelay(t, "dlq", "list", "--inbox", url, "--json", "--consumer", "inventory", "--key", "k0", "--state", "dead", "--since", "1h", "--id", "id0", "--source", "/shop")
	require.Zero(t, code, out)
	var l letter
	require.NoError(t, json.Unmarshal([]byte(out), &l))
	require.Equal(t, []any{int64(1), "inventory", "dead", "attempts", 5, "kafka orders/3@0"}, []any{l.N, l.Consumer, l.State, l.Class, l.Attempts, l.Origin})
	out, code = dlq("show", "1")
	require.Zero(t, code, out)
	require.Contains(t, out, "7 bytes of json")
	require.Contains(t, out, `"n": 0`)
	out, code = dlq("show", "6")
	require.Zero(t, code, out)
	require.Contains(t, out, "3 bytes\n              00ff01")

	for want, args := range map[string][]string{
		"no dead letter has this number":            {"show", "99"},
		`"x" is not an event's number`:              {"show", "x"},
		"--pipeline is of an outbox":                {"list", "--pipeline", "kafka"},
		`"nobody" has never run on this database`:   {"redrive", "--consumer", "nobody", "--reason", "r"},
		`it knows ["billing" "inventory"]`:          {"discard", "--consumer", "nobody", "--reason", "r"},
		"no filter":                                 {"redrive", "--reason", "r"},
		"is not a state":                            {"list", "--state", "lost"},
		`--inbox "other" is not one of stock`:       {"list", "--inbox", "other"},
		"URL is not a Postgres URL":                 {"list", "--inbox", "postgres://:x"},
		"environment variable NO_SUCH is not set":   {"list", "--inbox", "postgres://${NO_SUCH}"},
		"5 events would be redriven":                {"redrive", "--all", "--dry-run"},
		"6 events would be discarded":               {"discard", "--all", "--dry-run"},
		"relay migrate up inbox":                    {"list", "--inbox", pgtest.URL(t)},
		"0 events would be discarded":               {"discard", "--key", "none", "--dry-run"},
		"--reason is empty":                         {"discard", "--key", "k1"},
		`--until: "soon" is neither a time such as`: {"list", "--until", "soon"},
	} {
		out, _ = dlq(args...)
		require.Contains(t, out, want)
	}
	out, code = dlq("discard", "--n", "6", "--reason", "never needed", "--by", "ann", "--json")
	require.Zero(t, code, out)
	require.JSONEq(t, `{"action":"discard","dry_run":false,"events":1}`, out)
	out, code = dlq("redrive", "--key", "k1", "--reason", "mended", "--wait", "300ms")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, `no running inbox has taken them: start the consumer, with handlers for ["placed"]`)

	stop := consume(t, pool)
	out, code = dlq("redrive", "--class", "attempts", "--rate", "50", "--reason", "mended", "--json")
	stop()
	require.Equal(t, 1, code, out)
	require.Contains(t, out, `{"action":"redrive","events":3,"dry_run":false,"outcome":{"redriven":3,"retrying":0,"dead":1,"blocked":0}}`)
	require.Contains(t, out, "1 events are dead again")
	var states string
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT string_agg(concat(key, ' ', state), ', ' ORDER BY n) FROM inbox.dead`).Scan(&states))
	require.Equal(t, "k0 redriven, k1 redriven, k2 redriven, k3 dead, k0 redriven,  discarded", states)
	out, code = dlq("show", "6", "--json")
	require.Zero(t, code, out)
	l = letter{}
	require.NoError(t, json.Unmarshal([]byte(out), &l))
	require.Equal(t, []string{"discarded", "discard", "ann", "never needed"}, []string{l.State, l.Action, l.ActionBy, l.ActionReason})
}

// Each mistake in the list of inboxes is named with its line.
func TestBadInboxesNameLineAndField(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		`relay.yaml:2: inboxes[0].url: is empty`:                               "inboxes:\n  - {name: a}\n",
		`relay.yaml:2: inboxes[0].url: is not a Postgres URL`:                  "inboxes:\n  - {url: 'mysql://x'}\n",
		`relay.yaml:3: inboxes[1].name: "a" is used twice`:                     "inboxes:\n  - {url: 'postgres://h/a'}\n  - {url: 'postgres://i/a'}\n",
		`relay.yaml:2: inboxes[0].schema: "No" is not a schema name`:           "inboxes:\n  - {url: 'postgres://h/a', schema: No}\n",
		`relay.yaml:2: inboxes[0].wire.schemas: is only used with wire.format`: "inboxes:\n  - {url: 'postgres://h/a', wire: {schemas: [x]}}\n",
		`relay.yaml:2: inboxes[0].wire.registry.url: is empty`:                 "inboxes:\n  - {url: 'postgres://h/a', wire: {format: confluent}}\n",
		`relay.yaml:2: unknown field "urll"`:                                   "inboxes:\n  - {urll: 'postgres://h/a'}\n",
		`wire.schemas: open`:                                                   "inboxes:\n  - {url: 'postgres://h/a', wire: {format: single-object, schemas: [none.avsc]}}\n",
		`inboxes[0].url: environment variable NO_SUCH is not set`:              "inboxes:\n  - {url: 'postgres://${NO_SUCH}/a'}\n",
	} {
		out, code := runRelay(t, "dlq", "list", "--config", writeConfig(t, text), "--inbox", "a")
		require.Equal(t, exitUsage, code)
		require.Contains(t, out, want)
	}
}

type anything map[string]any

type jsonCodec struct{}

func (jsonCodec) Schema() event.Schema         { return event.Schema{Format: "json"} }
func (jsonCodec) Encode(v any) ([]byte, error) { return json.Marshal(v) }
func (jsonCodec) Decode(data []byte, _ event.Schema, v any) error {
	return json.Unmarshal(data, v)
}

// consume runs the consumer, whose handler refuses k3.
func consume(t *testing.T, pool *pgxpool.Pool) (stop func()) {
	t.Helper()
	broker := brokertest.NewMemory(brokertest.MemoryConfig{})
	broker.CreateTopic("orders", 1, 0)
	in, err := inbox.New(pool, inbox.Config{Consumer: "inventory", From: broker.Subscriber("inventory", "orders"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	placed := event.Type[anything]{Name: "placed", Topic: "orders", Codec: jsonCodec{}}
	inbox.On(in, placed, func(_ context.Context, _ pgx.Tx, e inbox.Event[anything]) error {
		if e.Key == "k3" {
			return inbox.Permanent(fmt.Errorf("still broken"))
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}
