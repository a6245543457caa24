package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay"
)

func TestConfigCheck(t *testing.T) {
	t.Setenv("CONFIG_CHECK_PASSWORD", "hunter2")
	good := writeConfig(t, layered+"inboxes:\n  - {name: stock, url: 'postgres://u:${CONFIG_CHECK_NONE}@h/d'}\n")
	out, code := runRelay(t, "config", "check", "--config", good)
	require.Zero(t, code, out)
	require.Contains(t, out, "relay.yaml: ok")
	require.Contains(t, out, "warning: relay dlq --inbox would end with: "+good+":12: inboxes[0].url: environment variable CONFIG_CHECK_NONE is not set")

	bad := writeConfig(t, "database: {url: 'mysql://u:${CONFIG_CHECK_PASSWORD}@h/d'}\nlease: fast\nleese: 1\npipelines: []\n")
	out, code = runRelay(t, "config", "check", "--config", bad)
	require.Equal(t, exitUsage, code)
	for _, want := range []string{bad + ":1: database.url: is not", bad + ":2: lease:", bad + `:3: unknown field "leese": did you mean lease?`, bad + ":4: pipelines: is empty", "the configuration has problems: 4"} {
		require.Contains(t, out, want)
	}
	out, code = runHere(t, "config", "check", "--config", bad, "--json")
	require.Equal(t, exitUsage, code)
	var verdict configVerdict
	require.NoError(t, json.NewDecoder(strings.NewReader(out)).Decode(&verdict))
	require.False(t, verdict.Valid)
	require.Len(t, verdict.Problems, 4)
	require.Contains(t, verdict.Problems, configProblem{Place: bad, Line: 2, Field: "lease", Problem: `"fast" is not a positive duration: write for example 15s, 2m or 72h`})

	out, code = runHere(t, "config", "check", "--config", good, "--lease", "fast")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `--lease: lease: "fast"`)
	out, code = runHere(t, "config", "check", "--config", "/none/such.yaml", "--json")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, `"place":"/none/such.yaml"`)
	out, code = runHere(t, "config", "check", "--config", writeConfig(t, "inboxes:\n  - {url: 'postgres://h/stock'}\n"))
	require.Zero(t, code, out, "a file for relay dlq alone")
	t.Setenv(envConfig, bad)
	out, _ = runHere(t, "config", "check")
	require.Contains(t, out, bad+":2: lease:")
	out, code = runHere(t, "config", "check", "--config", good)
	require.Zero(t, code, "the flag goes before the variable: %s", out)
}

func configShow(t *testing.T, path string, args ...string) (string, string) {
	t.Helper()
	var out, errors output
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&errors)
	root.SetArgs(append([]string{"config", "show", "--config", path}, args...))
	require.NoError(t, root.ExecuteContext(t.Context()))
	return out.String(), errors.String()
}

func TestConfigShow(t *testing.T) {
	t.Setenv("OUTBOXKIT_RETENTION", "48h")
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_PASSWORD", "hunter2")
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_USERNAME", "relay")
	t.Setenv("OUTBOXKIT_PIPELINES_0_VALIDATE", "false")
	t.Setenv("OUTBOXKIT_PIPELINES_0_BLOCK_KEY", "false")
	t.Setenv("OUTBOXKIT_RETENTOIN", "24h") // warned about, where no script looks for a result
	path := writeConfig(t, strings.Replace(layered, "postgres://h/file", "postgres://u:hunter2@h/file", 1)+"instance: ''\n")
	out, warnings := configShow(t, path, "--drain-timeout", "9s", "--json")
	require.Contains(t, warnings, "warning: the environment variable OUTBOXKIT_RETENTOIN sets nothing: did you mean OUTBOXKIT_RETENTION?")
	var list []shownSetting
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	for _, want := range []shownSetting{
		{"database.url", "postgres://u:***@h/file", path + ":1"},
		{"database.schema", "outbox", fromDefault},
		{"lease", "5s", path + ":2"},
		{"retention", "48h", "OUTBOXKIT_RETENTION"},
		{"drain_timeout", "9s", "--drain-timeout"},
		{"log.level", "info", fromDefault},
		{"instance", "host name", fromDefault}, // empty counts as left out
		{"pipelines[0].validate", false, "OUTBOXKIT_PIPELINES_0_VALIDATE"},
		{"pipelines[0].block_key", false, "OUTBOXKIT_PIPELINES_0_BLOCK_KEY"},
		{"pipelines[0].name", "kafka", path + ":5"},
		{"pipelines[0].kafka.brokers", []any{"file:1", "file:2"}, path + ":7"},
		{"pipelines[0].kafka.password", hidden, "OUTBOXKIT_PIPELINES_0_KAFKA_PASSWORD"},
		{"pipelines[0].topics", map[string]any{"orders": "shop.orders", "shop.bills": "bills"}, path + ":8"},
		{"pipelines[1].block_key", "true", fromDefault},
		{"pipelines[1].rabbitmq.queues", 4.0, path + ":10"},
	} {
		require.Contains(t, list, want)
	}
	for _, s := range list {
		require.NotContains(t, s.Key, "[1].kafka", "of the other broker")
	}
	out, _ = configShow(t, path)
	require.Regexp(t, regexp.MustCompile(`(?m)^retention +48h +OUTBOXKIT_RETENTION$`), out)
	require.NotContains(t, out, "hunter2")

	out, _ = configShow(t, writeConfig(t, manyDatabases))
	require.Contains(t, out, "databases[1].pipelines[0].rabbitmq.url")
	require.NotContains(t, out, "databases[0].pipelines", "it has those at the top")
	require.NotContains(t, out, "database.url")
}

// docs/configuration.md is what this code says.
func TestTheReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	for _, s := range documentedSettings() {
		require.NotEmpty(t, s.Doc, s.Key)
	}
	file, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	require.Equal(t, string(file), referenceText(newRoot()), "run: go generate ./cmd/relay")
}

// What the reference says of defaults and choices is what the checks do.
func TestDocumentedDefaultsAndChoices(t *testing.T) {
	t.Parallel()
	file := "database: {url: postgres://h/d}\npipelines: [{name: x, kafka: {brokers: [a]}, wire: {format: confluent, registry: {url: 'http://h:1'}}}]\n"
	path := writeConfig(t, file)
	c, v, err := settings{path: path}.checked()
	require.NoError(t, err)
	require.NoError(t, v.err())
	require.Equal(t, []string{"text", "topic", "oldest"}, []string{c.Log.Format, c.Pipelines[0].Wire.Registry.Subject, c.Pipelines[0].Start.At})
	durations := map[string]time.Duration{
		"lease": relay.DefaultLease, "drain_timeout": relay.DefaultDrainTimeout, "retention": relay.DefaultRetention,
		"pipelines[N].kafka.publish_timeout": 10 * time.Second, "databases[N].pipelines[N].kafka.publish_timeout": 10 * time.Second, // of kafka.Config
	}
	choose := map[string]string{
		"log.level":                             "log: {level: VALUE}\n" + file,
		"log.format":                            "log: {format: VALUE}\n" + file,
		"pipelines[N].wire.format":              strings.Replace(file, "format: confluent, registry: {url: 'http://h:1'}", "format: VALUE", 1),
		"pipelines[N].wire.registry.subject":    strings.Replace(file, "{url: 'http://h:1'}", "{url: 'http://h:1', subject: VALUE}", 1),
		"pipelines[N].kafka.mechanism":          strings.Replace(file, "brokers: [a]", "brokers: [a], mechanism: VALUE", 1),
		"pipelines[N].kafka.compression":        strings.Replace(file, "brokers: [a]", "brokers: [a], compression: VALUE", 1),
		"pipelines[N].start.at":                 strings.Replace(file, "name: x", "name: x, start: {at: VALUE}", 1),
		"databases[N].pipelines[N].wire.format": "", // the same
	}
	for _, s := range documentedSettings() {
		if s.Type == "duration" {
			require.Equal(t, durations[s.Key], duration(s.Default).value(), s.Key)
		}
		text := choose[s.Key]
		if s.Values == "" || text == "" {
			require.True(t, s.Values == "" || strings.HasPrefix(s.Key, "databases[N].") || strings.HasPrefix(s.Key, "inboxes[N]."), "%s: add it here", s.Key)
			continue
		}
		values := strings.Split(s.Values, ", ")
		if s.Key != "pipelines[N].kafka.mechanism" { // depends on other keys
			require.Contains(t, values, s.Default)
		}
		for _, value := range append(values, "nonsense") {
			_, err := loadConfig(writeConfig(t, strings.ReplaceAll(text, "VALUE", value)))
			refused := err != nil && strings.Contains(err.Error(), strings.ReplaceAll(s.Key, "[N]", "[0]")+`: "`+value+`" is not`)
			require.Equal(t, value == "nonsense", refused, "%s: %s: %v", s.Key, value, err)
		}
	}
}

// docs/relay.yaml shows every key that there is.
func TestTheExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	shown := map[string]bool{}
	numbers := regexp.MustCompile(`\[\d+\]`)
	// Blocks that name files and an issuer, which are not there, stand in comments.
	commented := regexp.MustCompile(`\.(?:tls|oauth)\.(\w+)$`)
	example, err := os.ReadFile("../../docs/relay.yaml")
	require.NoError(t, err)
	for _, path := range []string{"../../docs/relay.yaml", "../../docs/relay-databases.yaml"} {
		_, v, err := settings{path: path}.read()
		require.NoError(t, err)
		require.NoError(t, v.err())
		for at := range v.origins {
			shown[numbers.ReplaceAllString(at, "[N]")] = true
		}
	}
	shared := []string{"databases[N].pipelines[N].", "inboxes[N].wire.registry."} // as elsewhere in the file
	for _, s := range allSettings() {
		if !slices.ContainsFunc(shared, func(prefix string) bool { return strings.HasPrefix(s.path, prefix) }) {
			if key := commented.FindStringSubmatch(s.path); key != nil {
				require.Regexp(t, `(?m)^ *#  +`+key[1]+`: `, string(example), "%s is in no comment", s.path)
				continue
			}
			require.True(t, shown[s.path], "%s is in no example", s.path)
		}
	}
}
