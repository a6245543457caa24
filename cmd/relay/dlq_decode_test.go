package main

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/schema/avro"
)

const itemSchema = `{"type":"record","name":"item","fields":[{"name":"sku","type":"string"},{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}]}`

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
