package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

const layered = `database: {url: postgres://h/file}
lease: 5s
retention: 24h
pipelines:
  - name: kafka
    kafka:
      brokers: [file:1, file:2]
    topics: {orders: shop.orders, shop.bills: bills}
  - name: rabbit
    rabbitmq: {url: amqp://localhost/, queues: 4}
`

// withFlags loads as relay run with these flags would.
func withFlags(t *testing.T, path string, args ...string) (config, *validator, error) {
	t.Helper()
	cmd := &cobra.Command{}
	keyFlags(cmd)
	require.NoError(t, cmd.ParseFlags(args))
	return settings{path, cmd.Flags()}.checked()
}

// Flags go before the environment, and that before the file; what one layer does not
// mention stays.
func TestLayers(t *testing.T) {
	t.Setenv("OUTBOXKIT_LEASE", "6s")
	t.Setenv("OUTBOXKIT_DRAIN_TIMEOUT", "7s")
	t.Setenv("OUTBOXKIT_LOG_FORMAT", "json")
	t.Setenv("OUTBOXKIT_RETENTION", "") // as none
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_BROKERS", "env:1, env:2")
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_PASSWORD", "0123")
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_USERNAME", "${LAYERS_NOT_EXPANDED}")
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_TLS_CA_FILE", "system")
	t.Setenv("OUTBOXKIT_PIPELINES_0_TOPICS", `{"orders": "env.orders"}`)
	t.Setenv("OUTBOXKIT_PIPELINES_0_FILTER_TYPES", `["a,b", "c"]`)
	t.Setenv("OUTBOXKIT_PIPELINES_0_BLOCK_KEY", "false")
	t.Setenv("OUTBOXKIT_PIPELINES_1_RABBITMQ_QUEUES", "8")
	t.Setenv("OUTBOXKIT_PIPELINES_2_NAME", "third")
	t.Setenv("OUTBOXKIT_PIPELINES_2_RABBITMQ_URL", "amqp://third/")
	c, v, err := withFlags(t, writeConfig(t, layered), "--lease", "8s", "--database-schema", "flagged")
	require.NoError(t, err)
	require.NoError(t, v.err())

	require.Equal(t, 8*time.Second, c.Lease.value(), "the flag")
	require.Equal(t, 7*time.Second, c.DrainTimeout.value(), "the environment alone")
	require.Equal(t, 24*time.Hour, c.Retention.value(), "the file: the variable is empty")
	require.Equal(t, "json", c.Log.Format)
	require.Equal(t, databaseConfig{URL: "postgres://h/file", Schema: "flagged"}, c.Database)
	require.Len(t, c.Pipelines, 3)
	kafka := c.Pipelines[0]
	require.Equal(t, kafkaConfig{Brokers: []string{"env:1", "env:2"}, TLS: &tlsConfig{CAFile: "system"}, Username: "${LAYERS_NOT_EXPANDED}", Password: "0123"}, *kafka.Kafka)
	require.Equal(t, map[string]string{"orders": "env.orders"}, kafka.Topics, "replaced, not added to")
	require.Equal(t, []string{"a,b", "c"}, kafka.Filter.Types)
	require.Equal(t, new(bool), kafka.BlockKey)
	require.Nil(t, kafka.RabbitMQ)
	require.Equal(t, 8, c.Pipelines[1].RabbitMQ.Queues)
	require.Equal(t, "amqp://localhost/", c.Pipelines[1].RabbitMQ.URL, "the file's neighbour of a variable")
	require.Nil(t, c.Pipelines[1].BlockKey)
	require.Equal(t, "third", c.Pipelines[2].Name)
	require.Equal(t, "amqp://third/", c.Pipelines[2].RabbitMQ.URL)
}

// Without the environment the same file is what it was: topics may contain dots.
func TestFileAlone(t *testing.T) {
	c, err := loadConfig(writeConfig(t, layered))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"orders": "shop.orders", "shop.bills": "bills"}, c.Pipelines[0].Topics)
	require.Equal(t, []string{"file:1", "file:2"}, c.Pipelines[0].Kafka.Brokers)
}

// A mistake is blamed on the layer that made it.
func TestMistakesNameTheirVariableOrFlag(t *testing.T) {
	for variable, c := range map[string]struct{ value, want string }{
		"OUTBOXKIT_LEASE":                       {"fast", `OUTBOXKIT_LEASE: lease: "fast" is not a positive duration`},
		"OUTBOXKIT_PIPELINES_0_VALIDATE":        {"maybe", "OUTBOXKIT_PIPELINES_0_VALIDATE: pipelines[0].validate: is a text, must be a true or false"},
		"OUTBOXKIT_PIPELINES_1_RABBITMQ_QUEUES": {"many", "OUTBOXKIT_PIPELINES_1_RABBITMQ_QUEUES: pipelines[1].rabbitmq.queues: is a text, must be a whole number"},
		"OUTBOXKIT_PIPELINES_0_TOPICS":          {"orders", "OUTBOXKIT_PIPELINES_0_TOPICS: pipelines[0].topics: is a text, must be a group of keys"},
		"OUTBOXKIT_PIPELINES_0_FILTER_TOPICS":   {"[a", "OUTBOXKIT_PIPELINES_0_FILTER_TOPICS: pipelines[0].filter.topics: cannot be read: write JSON"},
		"OUTBOXKIT_PIPELINES_3_NAME":            {"x", "OUTBOXKIT_PIPELINES_3_NAME: pipelines[3]: is there, but pipelines[2] is not"},
		"OUTBOXKIT_DATABASE_URL":                {"mysql://u:hunter2@h/d", "OUTBOXKIT_DATABASE_URL: database.url: is not a Postgres URL"},
		"OUTBOXKIT_PIPELINES_1_NAME":            {"kafka", `OUTBOXKIT_PIPELINES_1_NAME: pipelines[1].name: "kafka" is used twice`},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, c.value)
			_, err := loadConfig(writeConfig(t, layered))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, v, err := withFlags(t, writeConfig(t, layered), "--log-level", "loud")
	require.NoError(t, err)
	require.ErrorContains(t, v.err(), `--log-level: log.level: "loud" is not a level`)
}

func TestUnknownVariablesAreWarnedAbout(t *testing.T) {
	for variable, want := range map[string]string{
		"OUTBOXKIT_DATABSE_URL":                   "OUTBOXKIT_DATABSE_URL sets nothing: did you mean OUTBOXKIT_DATABASE_URL?",
		"OUTBOXKIT_PIPELINES_0_KAFKA_BROKER":      "OUTBOXKIT_PIPELINES_0_KAFKA_BROKER sets nothing: did you mean OUTBOXKIT_PIPELINES_N_KAFKA_BROKERS?",
		"OUTBOXKIT_PIPELINES_00_NAME":             "OUTBOXKIT_PIPELINES_00_NAME sets nothing",
		"OUTBOXKIT_DATABASE":                      "OUTBOXKIT_DATABASE sets nothing",
		"OUTBOXKIT_ZZZZZZ":                        "OUTBOXKIT_ZZZZZZ sets nothing: docs/configuration.md has all that do",
		"OUTBOXKIT_RELAY_SERVICE_HOST":            "", // as Kubernetes makes them
		"OUTBOXKIT_RELAY_PORT_8080_TCP_ADDR":      "",
		"OUTBOXKIT_RELAY_SERVICE_PORT_METRICS":    "",
		"OUTBOXKIT_PIPELINES_0_WIRE_REGISTRY_URL": "", // known
		envConfig: "",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "http://localhost:1")
			_, v, err := settings{path: writeConfig(t, layered)}.checked()
			require.NoError(t, err)
			warnings := strings.Join(v.warnings, "\n")
			if want == "" {
				require.NotContains(t, warnings, variable)
			} else {
				require.Contains(t, warnings, want)
			}
		})
	}
}

// relay.yaml may be missing where the other layers have everything; a file that was
// named may not.
func TestWithoutAFile(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := loadConfig(defaultPath)
	require.ErrorIs(t, err, os.ErrNotExist)
	t.Setenv("OUTBOXKIT_DATABASE_URL", "postgres://h/d")
	_, err = loadConfig(defaultPath)
	require.ErrorContains(t, err, "relay.yaml (no such file): pipelines: is empty")
	t.Setenv("OUTBOXKIT_PIPELINES_0_NAME", "kafka")
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_BROKERS", "localhost:9092")
	c, err := loadConfig(defaultPath)
	require.NoError(t, err)
	require.Equal(t, []string{"localhost:9092"}, c.Pipelines[0].Kafka.Brokers)
	_, err = loadConfig("other.yaml")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Every key can be set in the environment, and no two share a variable.
func TestEveryKeyHasAVariable(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, s := range allSettings() {
		require.Empty(t, seen[s.variable()], s.path)
		seen[s.variable()] = s.path
		numbered := strings.ReplaceAll(strings.TrimPrefix(s.variable(), envPrefix), "_N_", "_12_")
		path, typ, ok := settingOf(numbered)
		require.True(t, ok, numbered)
		require.Equal(t, strings.ReplaceAll(s.path, "[N]", "[12]"), path)
		require.Equal(t, s.typ, typ)
	}
	require.Equal(t, "pipelines[N].wire.registry.url", seen["OUTBOXKIT_PIPELINES_N_WIRE_REGISTRY_URL"])
}
