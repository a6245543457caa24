package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// What is hidden is in nothing that relay dlq prints, whatever the payload is.
func TestDLQHides(t *testing.T) {
	t.Parallel()
	codec := avro.MustParse(`{"type":"record","name":"c","fields":[{"name":"customer","type":["null",{"type":"record","name":"p","fields":[{"name":"email","type":"string"},{"name":"city","type":"string"}]}]}]}`)
	data := []byte("\x02\x0ehunter2\x08Kiel") // the second of the union, with its two texts
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.pipeline (name) VALUES ('x')`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.schema (fp, format, text, content_type) VALUES (1, 'avro', $1, 'application/avro')`, codec.Schema().Text)
	require.NoError(t, err)
	const avroRow, jsonRow, textRow, bytesRow, emptyRow, brokenRow = 1, 2, 3, 4, 5, 6
	for _, p := range []struct {
		payload []byte
		schema  any
	}{
		avroRow - 1:   {data, 1},
		jsonRow - 1:   {[]byte(`{"customer":{"emails":[{"email":"hunter2"}]},"city":"Kiel"}`), nil},
		textRow - 1:   {[]byte("email=hunter2 city=Kiel"), nil},
		bytesRow - 1:  {[]byte("\xffhunter2"), nil},
		emptyRow - 1:  {nil, nil},
		brokenRow - 1: {[]byte("\x04hunter2"), 1}, // the union has no third
	} {
		_, err = conn.Exec(t.Context(), `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, schema_fp, state, blocks, reason)
			VALUES ('x', outbox.uuid_v7(), 'orders', 'shop.orders', 'k', 'placed', '/shop', now(), $1, $2, 'dead', true, 'r')`, p.payload, p.schema)
		require.NoError(t, err)
	}
	config := fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n", url)
	fields := writeConfig(t, config+"hide: [customer.email]\n")
	plain := writeConfig(t, config)
	run := func(args ...string) string {
		out, code := runRelay(t, append([]string{"dlq"}, args...)...)
		require.Zero(t, code, out)
		return out
	}
	require.Contains(t, run("show", "1", "--config", plain), "hunter2", "the test sees what is not hidden")

	var b strings.Builder
	for n := 1; n <= brokenRow; n++ {
		for _, more := range [][]string{{"--config", fields}, {"--config", fields, "--json"}, {"--config", plain, "--hide", "all"}, {"--config", plain, "--hide", "email,city"}} {
			b.WriteString(run(append([]string{"show", fmt.Sprint(n)}, more...)...))
		}
	}
	b.WriteString(run("list", "--config", fields) + run("list", "--config", fields, "--json"))
	export := run("export", "--config", fields)
	b.WriteString(export)
	for _, secret := range []string{"hunter2", "aHVudGVyMg", "68756e74657232"} { // also as base64 and in hexadecimal
		require.NotContains(t, b.String(), secret)
	}
	lines := strings.Split(strings.TrimSpace(export), "\n")
	require.Len(t, lines, brokenRow)
	for i, line := range lines {
		var l letter
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		require.Nil(t, l.Payload)
		require.Equal(t, i+1 != emptyRow, l.Hidden)
		require.Equal(t, i+1 == emptyRow, l.Tombstone)
		require.Equal(t, i+1 == avroRow || i+1 == jsonRow, strings.Contains(string(l.Decoded), "Kiel"), line)
		require.Equal(t, i+1 == brokenRow, l.DecodeError == "it cannot be read (why is hidden)", line)
	}
	for _, n := range []int{avroRow, jsonRow} {
		var id string
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT event_id::text FROM outbox.parked WHERE n = $1`, n).Scan(&id))
		for path, shown := range map[string]bool{plain: true, fields: false} {
			out, code := runRelay(t, "schema", "decode", "--event", id, "--config", path)
			require.Zero(t, code, out)
			require.Equal(t, shown, strings.Contains(out, "hunter2"))
			require.Contains(t, out, "Kiel")
		}
	}
	require.Contains(t, run("show", fmt.Sprint(textRow), "--config", fields), "23 bytes of text\n              hidden, as the configuration")

	entry, err := (&place{path: fields}).inbox(url)
	require.NoError(t, err)
	require.Equal(t, []string{"customer.email"}, entry.hide, "an inbox that is not in the file")
	entry, err = (&place{path: "/no/such.yaml"}).inbox(url)
	require.NoError(t, err, "the URL is all that is needed")
	require.Empty(t, entry.hide)

	out, code = runRelay(t, "dlq", "show", "1", "--config", plain, "--hide", "a..b")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `--hide: "a..b" is not a field`)
	out, code = runRelay(t, "dlq", "list", "--config", writeConfig(t, config+"hide: [email, 'a[0]']\n"))
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `relay.yaml:5: hide[1]: "a[0]" is not a field`)
}
