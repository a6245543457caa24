package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/schema/avro"
)

const itemSchema = `{"type":"record","name":"item","fields":[{"name":"sku","type":"string"},{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}]}`

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
		"database.url is not a Postgres URL":        {"list", "--inbox", "postgres://:x"},
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
	require.Contains(t, out, `{"action":"redrive","events":3,"dry_run":false,"outcome":{"redriven":3,"retrying":0,"dead":1}}`)
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

func price(text string) *big.Rat {
	r, _ := new(big.Rat).SetString(text)
	return r
}

// Every kind of payload is exported, and what a schema says about it is used.
func TestDLQExportDecodes(t *testing.T) {
	t.Parallel()
	codec := avro.MustParse(itemSchema)
	data, err := codec.Encode(map[string]any{"sku": "x", "price": price("12.50")})
	require.NoError(t, err)
	single, err := avro.SingleObject().Seal(t.Context(), "orders", codec.Schema(), data)
	require.NoError(t, err)
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/schemas/ids/7") {
			http.Error(w, `{"error_code":40403,"message":"Schema not found"}`, http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"schema": itemSchema})
	}))
	defer registry.Close()

	url, pool := consumerDatabase(t)
	payloads := [][]byte{
		append([]byte{0, 0, 0, 0, 7}, data...), append([]byte{0, 0, 0, 0, 8}, data...), {0, 0, 0, 0, 7, 0xff}, []byte(`{"n": 12345678901234567890}`),
		single, nil, {}, []byte("plain\n"), []byte("\x1b[2J"), {0xff, 0xfe},
	}
	_, err = pool.Exec(t.Context(), `DELETE FROM inbox.dead WHERE n > 1`)
	require.NoError(t, err)
	for _, p := range payloads {
		_, err := pool.Exec(t.Context(), `INSERT INTO inbox.dead (consumer, event_key, state, blocks, reason, attempts, topic, key, key_hash, id, source, type,
			content_type, correlation_id, causation_id, headers, payload, origin_broker, origin_topic, origin_partition, origin_offset)
			SELECT consumer, gen_random_uuid(), state, blocks, reason, attempts, topic, key, key_hash, id, source, type,
			content_type, correlation_id, causation_id, headers, $1, origin_broker, origin_topic, origin_partition, origin_offset FROM inbox.dead WHERE n = 1`, p)
		require.NoError(t, err)
	}
	path := writeConfig(t, fmt.Sprintf(`inboxes:
  - {name: confluent, url: %[1]q, wire: {format: confluent, registry: {url: %[2]q}}}
  - {name: single, url: %[1]q, wire: {format: single-object, schemas: [item.avsc]}}
  - {name: bare, url: %[1]q}
`, url, registry.URL))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), "item.avsc"), []byte(itemSchema), 0o600))
	export := func(name string) (list []letter) {
		out, code := runRelay(t, "dlq", "export", "--config", path, "--inbox", name)
		require.Zero(t, code, out)
		for line := range strings.Lines(out) {
			var l letter
			require.NoError(t, json.Unmarshal([]byte(line), &l), line)
			list = append(list, l)
		}
		require.Len(t, list, 1+len(payloads))
		return list[1:]
	}
	decodedAs := func(list []letter) (as []string) {
		for _, l := range list {
			as = append(as, strings.Join(slices.DeleteFunc([]string{l.DecodedAs, string(l.Decoded)}, func(s string) bool { return s == "" }), " "))
		}
		return as
	}
	const item, number, text = `avro {"price":12.5,"sku":"x"}`, `json {"n":12345678901234567890}`, `text "plain\n"`
	list := export("confluent")
	require.Equal(t, []string{item, "", "", number, "", "", "", text, "", ""}, decodedAs(list))
	for i, p := range payloads {
		require.Equal(t, string(p), string(list[i].Payload))
		require.Equal(t, p == nil, list[i].Tombstone)
	}
	require.Contains(t, list[1].DecodeError, "8")
	require.NotEmpty(t, list[2].DecodeError)
	require.Equal(t, []string{"", "", "", number, item, "", "", text, "", ""}, decodedAs(export("single")))
	list = export("bare")
	require.Equal(t, []string{"", "", "", number, "", "", "", text, "", ""}, decodedAs(list))
	require.Contains(t, list[0].DecodeError, "schema id 7?")
	require.Contains(t, list[4].DecodeError, "single-object encoding, schema fingerprint")
	for _, l := range list {
		out, code := runRelay(t, "dlq", "show", fmt.Sprint(l.N), "--config", path, "--inbox", "confluent")
		require.Zero(t, code, out)
		require.NotContains(t, out, "\x1b")
	}
	registry.Close()
	require.Contains(t, export("confluent")[0].DecodeError, "unavailable")
}

// An outbox's payloads are read by the schemas that are stored with it.
func TestDLQOfAnOutboxDecodes(t *testing.T) {
	t.Parallel()
	codec := avro.MustParse(itemSchema)
	data, err := codec.Encode(map[string]any{"sku": "x", "price": price("0.01")})
	require.NoError(t, err)
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.pipeline (name) VALUES ('x')`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.schema (fp, format, text, content_type) VALUES (1, 'avro', $1, 'application/avro')`, itemSchema)
	require.NoError(t, err)
	for _, p := range [][]byte{data, {1}} {
		_, err = conn.Exec(t.Context(), `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, schema_fp, state, blocks, reason)
			VALUES ('x', outbox.uuid_v7(), 'orders', 'shop.orders', 'k', 'placed', '/shop', now(), $1, 1, 'dead', true, 'r')`, p)
		require.NoError(t, err)
	}
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n", url))
	out, code = runRelay(t, "dlq", "show", "1", "--config", path)
	require.Zero(t, code, out)
	require.Contains(t, out, "bytes of avro")
	require.Contains(t, out, `"price": 0.01`)
	require.Contains(t, out, "application/avro")
	out, code = runRelay(t, "dlq", "export", "--config", path, "--source", "/shop")
	require.Zero(t, code, out)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], `"decoded":{"price":0.01,"sku":"x"}`)
	require.Contains(t, lines[1], `"decode_error":`)
	var fromOutbox, fromInbox map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &fromOutbox))
	inboxURL, _ := consumerDatabase(t)
	out, code = runRelay(t, "dlq", "export", "--inbox", inboxURL, "--consumer", "billing")
	require.Zero(t, code, out)
	require.NoError(t, json.Unmarshal([]byte(out), &fromInbox))
	for _, key := range []string{"n", "state", "id", "source", "type", "topic", "key", "attempts", "stored_at", "bytes", "payload"} {
		require.Contains(t, fromOutbox, key)
		require.Contains(t, fromInbox, key)
	}
}
