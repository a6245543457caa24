package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/schema/avro"
)

const (
	moneyAvsc = `{"type": "record", "name": "shop.Money", "fields": [{"name": "amount", "type": "long"}]}`
	orderAvsc = `{
  "type": "record", "name": "OrderPlaced", "namespace": "shop",
  "fields": [
    {"name": "id", "type": "string"},
    {"name": "total", "type": "Money"},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
      {"name": "sku", "type": "string"}
    ]}}}
  ]
}`
)

// orderWith has further fields in its items.
func orderWith(fields ...string) string {
	return strings.Replace(orderAvsc, `{"name": "sku", "type": "string"}`, strings.Join(append([]string{`{"name": "sku", "type": "string"}`}, fields...), ",\n      "), 1)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// shop is a folder with two schemas, one of which refers to the other.
func shop(t *testing.T) string {
	t.Helper()
	t.Setenv("GITHUB_ACTIONS", "")
	dir := filepath.Join(t.TempDir(), "schemas")
	writeFile(t, filepath.Join(dir, "order.avsc"), orderAvsc)
	writeFile(t, filepath.Join(dir, "money.avsc"), moneyAvsc)
	return dir
}

func orderCodec(t *testing.T, dir string) *avro.Codec {
	t.Helper()
	f, err := avro.Open(dir)
	require.NoError(t, err)
	return f.MustCodec("shop.OrderPlaced")
}

const orderJSON = `{"id": "o-1", "total": {"amount": 5}, "items": [{"sku": "a"}]}`

func encodedOrder(t *testing.T, dir string) (event.Schema, []byte) {
	t.Helper()
	c := orderCodec(t, dir)
	data, err := c.EncodeJSON([]byte(orderJSON))
	require.NoError(t, err)
	return c.Schema(), data
}

func TestSchemaValidate(t *testing.T) {
	dir := shop(t)
	order := filepath.Join(dir, "order.avsc")
	out, code := runHere(t, "schema", "validate", dir)
	require.Zero(t, code, out)
	require.Equal(t, fmt.Sprintf("ok    %s: shop.Money\nok    %s: shop.OrderPlaced\n", filepath.Join(dir, "money.avsc"), order), out)

	payload := filepath.Join(t.TempDir(), "order.json")
	writeFile(t, payload, orderJSON)
	out, code = runHere(t, "schema", "validate", order, "--payload", payload)
	require.Zero(t, code, out)
	writeFile(t, payload, strings.Replace(orderJSON, `"a"`, `1`, 1))
	out, code = runHere(t, "schema", "validate", order, "--payload", payload)
	require.Equal(t, 1, code)
	require.Contains(t, out, "the payload does not fit shop.OrderPlaced: items[0].sku is 1, which is not a string")

	_, data := encodedOrder(t, dir)
	writeFile(t, payload, hex.EncodeToString(data))
	out, code = runHere(t, "schema", "validate", dir, "--payload", payload, "--as", "hex", "--type", "shop.OrderPlaced")
	require.Zero(t, code, out)
	writeFile(t, payload, base64.StdEncoding.EncodeToString(data[:len(data)-1]))
	out, code = runHere(t, "schema", "validate", order, "--payload", payload, "--as", "base64")
	require.Equal(t, 1, code)
	require.Contains(t, out, "items")
	out, code = runHere(t, "schema", "validate", dir, "--payload", payload)
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "which of shop.Money, shop.OrderPlaced?")

	t.Setenv("GITHUB_ACTIONS", "true")
	writeFile(t, order, `{"type": "record"}`)
	out, code = runHere(t, "schema", "validate", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "order.avsc: avro: invalid Avro schema")
	require.Contains(t, out, "::error file="+dir+",title=schema::")
}

func gitIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestSchemaCheckAgainstGit(t *testing.T) {
	dir := shop(t)
	order := filepath.Join(dir, "order.avsc")
	repo := filepath.Dir(dir)
	gitIn(t, repo, "init", "-q")
	writeFile(t, filepath.Join(repo, "readme"), "x")
	gitIn(t, repo, "add", "readme")
	gitIn(t, repo, "commit", "-qm", "empty")
	gitIn(t, repo, "tag", "before")
	gitIn(t, repo, "add", ".")
	gitIn(t, repo, "commit", "-qm", "schemas")

	for _, rev := range []string{"HEAD", "before"} {
		out, code := runHere(t, "schema", "check", dir, "--git", rev)
		require.Zero(t, code, out)
		require.Contains(t, out, "ok    "+order+": shop.OrderPlaced (BACKWARD)")
	}
	writeFile(t, order, orderWith(`{"name": "qty", "type": "int"}`))
	out, code := runHere(t, "schema", "check", dir, "--git", "HEAD")
	require.Equal(t, 1, code)
	require.Contains(t, out, "FAIL  "+order+": shop.OrderPlaced (BACKWARD)\n      field `items[].qty`: added without default breaks BACKWARD\n")
	require.Contains(t, out, "ok    "+filepath.Join(dir, "money.avsc"))
	require.NotContains(t, out, "::error")
	out, code = runHere(t, "schema", "check", order, "--git", "HEAD", "--mode", "forward")
	require.Zero(t, code, out)
	require.NotContains(t, out, "money.avsc", "only what was asked for")
	out, code = runRelay(t, "schema", "check", order, "--git", "HEAD", "--json") // as CI does, for its exit code
	require.Equal(t, 1, code)
	require.Contains(t, out, `"compatible":false,"mode":"BACKWARD","problems":[{"path":"items[].qty","rule":"MISSING_DEFAULT","line":8,"version":1,"message":"field `+"`items[].qty`"+`: added`)

	// A change in a file that others refer to concerns them too.
	writeFile(t, order, orderAvsc)
	writeFile(t, filepath.Join(dir, "money.avsc"), strings.Replace(moneyAvsc, `"long"`, `"string"`, 1))
	t.Setenv("GITHUB_ACTIONS", "true")
	out, code = runHere(t, "schema", "check", order, "--git", "HEAD")
	require.Equal(t, 1, code)
	require.Contains(t, out, "::error file="+order+",title=schema::field `total.amount`: type changed from long to string breaks BACKWARD\n")

	writeFile(t, order, orderWith(`{"name": "qty", "type": "int"}`))
	writeFile(t, filepath.Join(dir, "money.avsc"), moneyAvsc)
	out, _ = runHere(t, "schema", "check", dir, "--git", "HEAD")
	require.Contains(t, out, "::error file="+order+",line=8,title=schema::field `items[].qty`: added without default breaks BACKWARD\n")

	require.NoError(t, os.Remove(order))
	out, code = runHere(t, "schema", "check", dir, "--git", "HEAD")
	require.Zero(t, code, out)
	require.Contains(t, out, "gone  shop.OrderPlaced")
	out, code = runHere(t, "schema", "check", dir, "--git", "nowhere")
	require.Equal(t, 1, code)
	require.Contains(t, out, "no such revision here")
}

func TestSchemaCheckAgainstFrozenFiles(t *testing.T) {
	dir := shop(t)
	order := filepath.Join(dir, "order.avsc")
	for range 2 { // the second time nothing changes
		out, code := runHere(t, "schema", "register", order)
		require.Zero(t, code, out)
		require.Contains(t, out, "shop.OrderPlaced: version 1\n")
	}
	writeFile(t, order, orderWith(`{"name": "qty", "type": "int", "default": 1}`))
	out, code := runHere(t, "schema", "check", dir)
	require.Zero(t, code, out)
	out, code = runHere(t, "schema", "register", order)
	require.Zero(t, code, out)
	require.Contains(t, out, "version 2")
	writeFile(t, order, orderWith(`{"name": "qty", "type": "int"}`))
	out, code = runHere(t, "schema", "check", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "field `items[].qty`: added without default breaks BACKWARD (against version 1)")
	out, code = runHere(t, "schema", "register", order)
	require.Equal(t, 1, code)
	require.Contains(t, out, "added without default breaks BACKWARD")
	require.NoFileExists(t, filepath.Join(dir, "order.v3.avsc"))
}

func TestSchemaCommandsWithARealRegistry(t *testing.T) {
	url := svctest.Registry(t)
	dir := shop(t)
	order := filepath.Join(dir, "order.avsc")
	topic := svctest.Unique("orders")
	to := []string{"--registry", url, "--topic", topic}
	run := func(args ...string) (string, int) {
		return runHere(t, append(append([]string{"schema"}, args...), to...)...)
	}

	out, code := run("check", order)
	require.Zero(t, code, out)
	out, code = run("register", order)
	require.Zero(t, code, out)
	require.Contains(t, out, "subject "+topic+"-value: version 1, id ")
	id := strings.TrimSpace(out[strings.Index(out, ", id ")+5:])

	for _, verb := range []string{"check", "register"} {
		out, code = run(verb, dir)
		require.Equal(t, exitUsage, code)
		require.Contains(t, out, "2 schemas (shop.Money, shop.OrderPlaced) and one subject")
	}
	out, code = run("check", dir, "--strategy", "topic-record")
	require.Zero(t, code, out)
	require.Contains(t, out, "shop.Money, subject "+topic+"-shop.Money (")

	// The registry's mode is NONE; what it does not forbid passes.
	writeFile(t, order, orderWith(`{"name": "qty", "type": "int"}`))
	out, code = run("check", order)
	require.Zero(t, code, out)
	require.Contains(t, out, "(NONE)")
	setRegistryMode(t, url, topic+"-value", "FULL")
	out, code = run("check", order)
	require.Equal(t, 1, code)
	require.Contains(t, out, "field `items[].qty`: added without default breaks BACKWARD")
	out, code = run("register", order)
	require.Equal(t, 1, code)
	require.Contains(t, out, "field `items[].qty`: added without default breaks BACKWARD")

	// As it lies on Kafka.
	writeFile(t, order, orderAvsc)
	_, data := encodedOrder(t, dir)
	var n uint32
	_, err := fmt.Sscan(id, &n)
	require.NoError(t, err)
	wire := append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, data...)
	out, code = runHere(t, "schema", "decode", hex.EncodeToString(wire), "--registry", url)
	require.Zero(t, code, out)
	require.Contains(t, out, "avro shop.OrderPlaced\n")
	require.JSONEq(t, orderJSON, out[strings.Index(out, "{"):])
	out, code = runHere(t, "schema", "decode", hex.EncodeToString(wire))
	require.Equal(t, 1, code)
	require.Contains(t, out, "Confluent's wire format with schema id "+id)
}

func TestSchemaDecode(t *testing.T) {
	dir := shop(t)
	s, data := encodedOrder(t, dir)
	decode := func(stdin []byte, args ...string) string {
		t.Helper()
		out, _ := runIn(t, string(stdin), append([]string{"schema", "decode"}, args...)...)
		return out
	}
	isOrder := func(out string) {
		t.Helper()
		require.Contains(t, out, "{")
		require.JSONEq(t, orderJSON, out[strings.Index(out, "{"):])
	}
	order := filepath.Join(dir, "order.avsc")
	isOrder(decode(nil, hex.EncodeToString(data), "--schema", order))
	isOrder(decode(nil, `\x`+hex.EncodeToString(data), "--schema", dir, "--type", "shop.OrderPlaced"))
	isOrder(decode(nil, base64.RawURLEncoding.EncodeToString(data), "--as", "base64", "--schema", order))
	isOrder(decode(data, "--schema", order))
	isOrder(decode([]byte(hex.EncodeToString(data)+"\n"), "--as", "hex", "--schema", order))
	isOrder(decode([]byte(orderJSON)))

	sealed, err := avro.SingleObject().Seal(t.Context(), "", s, data)
	require.NoError(t, err)
	isOrder(decode(sealed, "--schema", dir))
	require.Contains(t, decode(sealed), "Avro's single-object encoding, schema fingerprint")

	// An earlier version that is only there frozen.
	out, code := runHere(t, "schema", "register", order)
	require.Zero(t, code, out)
	writeFile(t, order, orderWith(`{"name": "qty", "type": "int", "default": 1}`))
	isOrder(decode(sealed, "--schema", dir))

	require.Contains(t, decode(data[:5], "--schema", order, "--type", "shop.OrderPlaced"), "relay: avro:")
	require.Contains(t, decode(nil, "xyz"), "the input is not hex")
}

func TestSchemaDecodeFromTheLog(t *testing.T) {
	dir := shop(t)
	url := pgtest.URL(t)
	out, code := runHere(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n", url))

	// A service in another language: it needs the number of its schema.
	out, code = runHere(t, "schema", "register", filepath.Join(dir, "order.avsc"), "--log", url)
	require.Zero(t, code, out)
	s, data := encodedOrder(t, dir)
	require.Contains(t, out, fmt.Sprintf("schema_fp %d\n", s.Fingerprint()))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // the test's end
	var id, plain, gone string
	insert := `INSERT INTO outbox.event (topic, key, type, source, payload, schema_fp) VALUES ('orders', 'k', 't', 's', $1, $2) RETURNING event_id::text`
	require.NoError(t, conn.QueryRow(t.Context(), insert, data, s.Fingerprint()).Scan(&id))
	require.NoError(t, conn.QueryRow(t.Context(), insert, []byte(`{"a": 1}`), nil).Scan(&plain))
	require.NoError(t, conn.QueryRow(t.Context(), insert, nil, nil).Scan(&gone))

	out, code = runHere(t, "schema", "decode", "--event", id, "--config", path)
	require.Zero(t, code, out)
	require.JSONEq(t, orderJSON, out[strings.Index(out, "{"):])
	out, code = runHere(t, "schema", "decode", "--event", plain, "--config", path)
	require.Zero(t, code, out)
	require.JSONEq(t, `{"a": 1}`, out)
	out, code = runHere(t, "schema", "decode", "--event", gone, "--config", path)
	require.Equal(t, 1, code)
	require.Contains(t, out, "is a tombstone")
	out, code = runHere(t, "schema", "decode", "--event", "0199e6a4-7d3c-7c1e-9a54-1f0e4c6d2b7a", "--config", path)
	require.Equal(t, 1, code)
	require.Contains(t, out, "not in the log")
}
