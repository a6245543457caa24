package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const goodConfig = `database:
  url: postgres://relay:${RELAY_TEST_PASSWORD}@db/shop
  schema: shop_outbox
lease: 5s
pipelines:
  - name: kafka
    kafka:
      brokers: [localhost:9092]
    wire:
      format: confluent
      registry: {url: "http://localhost:8081", register: true}
  - name: rabbit
    rabbitmq:
      url: amqp://localhost/
`

func TestLoadConfig(t *testing.T) {
	t.Setenv("RELAY_TEST_PASSWORD", "pa$$word")
	c, err := loadConfig(writeConfig(t, goodConfig))
	require.NoError(t, err)
	require.Equal(t, "postgres://relay:pa$$word@db/shop", c.Database.URL)
	require.Equal(t, 5*time.Second, c.Lease.value())
	require.Equal(t, []string{"localhost:9092"}, c.Pipelines[0].Kafka.Brokers)
	require.Equal(t, wireBare, c.Pipelines[1].Wire.Format)
}

func TestBadConfigNamesLineAndField(t *testing.T) {
	t.Setenv("RELAY_TEST_PASSWORD", "x")
	for name, c := range map[string]struct{ from, to, want string }{
		"unknown key":      {"lease: 5s", "leese: 5s", `relay.yaml:4: unknown field "leese"`},
		"too short":        {"lease: 5s", "lease: 10ms", `relay.yaml:4: lease: "10ms" is too short`},
		"schema":           {"schema: shop_outbox", "schema: 'Bad Schema'", `relay.yaml:3: database.schema: "Bad Schema" is not a schema name`},
		"not Postgres":     {"postgres://relay:${RELAY_TEST_PASSWORD}@db/shop", "mysql://u:hunter2@h/d", `relay.yaml:2: database.url: is not a Postgres URL`},
		"not a list":       {"brokers: [localhost:9092]", "brokers: localhost:9092", `relay.yaml:8: pipelines[0].kafka.brokers: is a text, must be a list`},
		"not a boolean":    {"register: true", "register: maybe", `relay.yaml:11: pipelines[0].wire.registry.register: is a text, must be a true or false`},
		"not a group":      {"brokers: [localhost:9092]", "brokers: [localhost:9092]\n      tls: maybe", `relay.yaml:9: pipelines[0].kafka.tls: is a text, must be a group of keys`},
		"not a number":     {"url: amqp://localhost/", "url: amqp://localhost/\n      queues: many", `relay.yaml:15: pipelines[1].rabbitmq.queues: is a text, must be a whole number`},
		"negative queues":  {"url: amqp://localhost/", "url: amqp://localhost/\n      queues: -4", `relay.yaml:15: pipelines[1].rabbitmq.queues: -4 is negative`},
		"not AMQP":         {"url: amqp://localhost/", "url: http://u:hunter2@localhost/", `relay.yaml:14: pipelines[1].rabbitmq.url: is not an AMQP URL`},
		"password alone":   {"brokers: [localhost:9092]", "brokers: [localhost:9092]\n      password: hunter2", `pipelines[0].kafka.username: is empty but`},
		"user alone":       {"brokers: [localhost:9092]", "brokers: [localhost:9092]\n      username: u", `relay.yaml:7: pipelines[0].kafka.password: is empty, which PLAIN needs`},
		"two users":        {`url: "http://localhost:8081"`, `url: "http://u:hunter2@localhost:8081", username: u`, `relay.yaml:11: pipelines[0].wire.registry.username: `},
		"admin elsewhere":  {"lease: 5s", "lease: 5s\nadmin: {listen: '0.0.0.0:9464'}", `relay.yaml:5: admin.listen: "0.0.0.0:9464" can be reached from elsewhere without TLS`},
		"admin address":    {"lease: 5s", "lease: 5s\nadmin:\n  listen: here", `relay.yaml:6: admin.listen: "here" is not host:port`},
		"probes address":   {"lease: 5s", "lease: 5s\nadmin: {probes: '8080'}", `relay.yaml:5: admin.probes: "8080" is not an address`},
		"bad duration":     {"lease: 5s", "lease: fast", `relay.yaml:4: lease: "fast" is not a positive duration`},
		"negative":         {"lease: 5s", "lease: -5s", `relay.yaml:4: lease: "-5s" is not a positive`},
		"syntax":           {"lease: 5s", "lease: [", `relay.yaml:`},
		"no url":           {"url: postgres://relay:${RELAY_TEST_PASSWORD}@db/shop", "url: ''", `relay.yaml:2: database.url: is empty`},
		"unset variable":   {"${RELAY_TEST_PASSWORD}", "${RELAY_TEST_NO_SUCH}", `relay.yaml:2: database.url: environment variable RELAY_TEST_NO_SUCH is not set`},
		"no brokers":       {"brokers: [localhost:9092]", "brokers: []", `relay.yaml:8: pipelines[0].kafka.brokers: is empty`},
		"two brokers":      {"  - name: rabbit\n", "    rabbitmq: {url: x}\n  - name: rabbit\n", `pipelines[0]: needs exactly one of kafka and rabbitmq`},
		"same name":        {"name: rabbit", "name: kafka", `relay.yaml:12: pipelines[1].name: "kafka" is used twice`},
		"wire format":      {"format: confluent", "format: protobuf", `relay.yaml:10: pipelines[0].wire.format: "protobuf" is not known: use bare, confluent, single-object`},
		"registry missing": {`url: "http://localhost:8081"`, `url: ""`, `pipelines[0].wire.registry.url: is empty`},
		"registry unused":  {"format: confluent", "format: bare", `pipelines[0].wire.registry: is only used with`},
		"log level":        {"lease: 5s", "log: {level: loud}", `relay.yaml:4: log.level: "loud" is not a level`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, goodConfig, c.from)
			_, err := loadConfig(writeConfig(t, strings.Replace(goodConfig, c.from, c.to, 1)))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, err := loadConfig(writeConfig(t, "database: {url: x}\n"))
	require.ErrorContains(t, err, "relay.yaml: pipelines: is empty")
	_, err = loadConfig(writeConfig(t, ""))
	require.ErrorContains(t, err, "relay.yaml: database.url: is empty")
	_, err = loadConfig(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The file that documents every key must itself be good.
func TestTheDocumentedConfigIsGood(t *testing.T) {
	t.Setenv("RELAY_DB_PASSWORD", "x")
	c, err := loadConfig("../../docs/relay.yaml")
	require.NoError(t, err)
	require.Len(t, c.Pipelines, 2)
	a := newAdapters(nil)
	_, err = c.relay(a, nil)
	require.NoError(t, err)
	require.NoError(t, a.Close())

	c, err = loadConfig("../../docs/relay-databases.yaml")
	require.NoError(t, err)
	require.Len(t, c.each(), 3)
}

func TestFlowStyle(t *testing.T) {
	c, err := loadConfig(writeConfig(t, "database: {url: postgres://h/d}\npipelines: [{name: x, kafka: {brokers: [localhost:9092, other:9092]}}]\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"localhost:9092", "other:9092"}, c.Pipelines[0].Kafka.Brokers)
}

func TestAllProblemsAtOnceAndNoSecrets(t *testing.T) {
	_, err := loadConfig(writeConfig(t, "database: {url: 'postgres://u:hunter2@h/d', schemaa: x}\nlease: 1s\n"))
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
	_, err = loadConfig(writeConfig(t, "lease: -1s\nretention: -2s\n"))
	require.ErrorContains(t, err, "lease")
	require.ErrorContains(t, err, "retention")
	require.ErrorContains(t, err, "database.url")
}
