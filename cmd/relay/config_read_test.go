package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnknownKeysAreSuggested(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"leese: 5s":                             `relay.yaml:1: unknown field "leese": did you mean lease?`,
		"drainTimeout: 5s":                      `relay.yaml:1: unknown field "drainTimeout": did you mean drain_timeout?`,
		"log: {levle: info}":                    `relay.yaml:1: unknown field "levle" in log: did you mean level?`,
		"pipelines:\n  - name: a\n    kafak: x": `relay.yaml:3: unknown field "kafak" in pipelines[0]: did you mean kafka?`,
		"pipelines:\n  - brokers: [a]":          `relay.yaml:2: unknown field "brokers" in pipelines[0]: did you mean kafka.brokers?`,
		"log: {zzz: 1}":                         `relay.yaml:1: unknown field "zzz" in log: known are level, format`,
		"databases:\n  - {schem: x}":            `relay.yaml:2: unknown field "schem" in databases[0]: did you mean schema?`,
	} {
		_, err := loadConfig(writeConfig(t, text))
		require.ErrorContains(t, err, want)
	}
}

// Also what the reading finds and what the checks find comes together.
func TestEveryProblemAtOnce(t *testing.T) {
	t.Parallel()
	_, err := loadConfig(writeConfig(t, `database: {url: 'mysql://u:hunter2@h/d'}
leese: 5s
lease: fast
pipelines:
  - name: [a]
    kafka: {brokers: x, tls: maybe, usrname: u}
  - name: b
    rabbitmq: {url: 'http://u:hunter2@h/', queues: 1.5}
lease: 3s
`))
	for _, want := range []string{
		"relay.yaml:1: database.url: is not a Postgres URL",
		`relay.yaml:2: unknown field "leese"`,
		"relay.yaml:5: pipelines[0].name: is a list, must be a text",
		"relay.yaml:6: pipelines[0].kafka.brokers: is a text, must be a list",
		"relay.yaml:6: pipelines[0].kafka.tls: is a text, must be a group of keys",
		`relay.yaml:6: unknown field "usrname" in pipelines[0].kafka: did you mean username?`,
		"relay.yaml:8: pipelines[1].rabbitmq.queues: is a number, must be a whole number",
		"relay.yaml:8: pipelines[1].rabbitmq.url: is not an AMQP URL",
		`relay.yaml:9: mapping key "lease" already defined at line 3`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "hunter2")
	require.Equal(t, 1, strings.Count(err.Error(), "pipelines[0].kafka.brokers"), "one problem of a field is enough")
}

// What YAML allows is read as before.
func TestYAML(t *testing.T) {
	t.Parallel()
	c, err := loadConfig(writeConfig(t, `# comment
database: {url: postgres://h/d}
instance: 0123
lease: ~
retention:
pipelines:
  - &first
    name: 1
    kafka: &cluster {brokers: ["a:1"], username: yes, password: 0x10, tls: {server_name: on}}
  - <<: *first
    name: second
  - {name: third, kafka: *cluster}
  - name: fourth
    kafka: {<<: *cluster, tls: {}}
    rabbitmq: ~
  - name: fifth
    kafka: {<<: [{password: first}, {password: second, username: u, brokers: ["a:1"]}]}
`))
	require.NoError(t, err)
	require.Equal(t, kafkaConfig{Brokers: []string{"a:1"}, Username: "u", Password: "first"}, *c.Pipelines[4].Kafka, "of merged groups the first goes before the second")
	require.Equal(t, "0123", c.Instance, "no number")
	require.Zero(t, c.Lease.value())
	require.Equal(t, []string{"1", "second", "third", "fourth"}, []string{c.Pipelines[0].Name, c.Pipelines[1].Name, c.Pipelines[2].Name, c.Pipelines[3].Name})
	want := kafkaConfig{Brokers: []string{"a:1"}, Username: "yes", Password: "0x10", TLS: &tlsConfig{ServerName: "on"}}
	for _, p := range c.Pipelines[:3] {
		require.Equal(t, want, *p.Kafka)
	}
	want.TLS = &tlsConfig{}
	require.Equal(t, want, *c.Pipelines[3].Kafka)
}

// More than ten entries stay in their order.
func TestManyEntries(t *testing.T) {
	t.Parallel()
	text := "database: {url: postgres://h/d}\npipelines:\n"
	for i := range 12 {
		text += fmt.Sprintf("  - {name: p%d, kafka: {brokers: [a]}}\n", i)
	}
	c, err := loadConfig(writeConfig(t, text))
	require.NoError(t, err)
	require.Len(t, c.Pipelines, 12)
	for i, p := range c.Pipelines {
		require.Equal(t, fmt.Sprintf("p%d", i), p.Name)
	}
}

// None hangs, fills the memory or shows what may be a secret.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x]\n"
	for i := range 20 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9))
	}
	for text, want := range map[string]string{
		"database: &d\n  <<: *d\n":               "contains itself",
		"pipelines: &p\n  - *p\n":                "contains itself",
		bomb:                                     "excessive aliasing",
		"database: {url: *hunter2}\n":            "has to be put in quotation marks",
		"instance: !!int hunter2\n":              "relay.yaml",
		"instance: @hunter2\n":                   "relay.yaml",
		"{":                                      "relay.yaml",
		"- a\n":                                  "is a list, must be a group of keys",
		"lease: 5s\n---\nlease: 6s\n":            "has a second document",
		"\xff\xfe":                               "relay.yaml",
		"? [a, b]\n: c\n":                        "relay.yaml",
		"pipelines: [{topics: {a: {b: c}}}]\n":   "pipelines[0].topics.a: is a group of keys, must be a text",
		"database: hunter2\n":                    "database: is a text, must be a group of keys",
		"pipelines: [{kafka: {tls: hunter2}}]\n": "pipelines[0].kafka.tls: is a text, must be a group of keys",
		"pipelines: [{kafka: {brokers: hunter2}}]\n": "pipelines[0].kafka.brokers: is a text, must be a list",
		"pipelines: [~, {name: x}]\n":                "pipelines[0].name: is empty",
		"log: {level: [info]}\n":                     "log.level: is a list, must be a text",
		"pipelines:\n  - <<: 5\n    name: hunter\n":  "relay.yaml",
	} {
		_, err := loadConfig(writeConfig(t, text))
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
}
