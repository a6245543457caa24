package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlainTextIsWarnedAbout(t *testing.T) {
	t.Parallel()
	for pipeline, want := range map[string]string{
		"kafka: {brokers: ['localhost:9092', 'kafka-1:9092'], username: u, password: hunter2}":                                    "relay.yaml:4: pipelines[0].kafka: the password or token goes to kafka-1:9092 in plain text: write tls: {}, or use SCRAM",
		"kafka: {brokers: ['kafka-1:9092'], token_file: /var/run/token}":                                                          "goes to kafka-1:9092",
		"kafka: {brokers: ['kafka-1:9092'], tls: {}, oauth: {token_url: 'http://login/t', client_id: x, client_secret: hunter2}}": "relay.yaml:4: pipelines[0].kafka.oauth.token_url: the client's secret goes to login in plain text: write https://",
		"rabbitmq: {url: 'amqp://u:hunter2@rabbit:5672/'}":                                                                        "relay.yaml:4: pipelines[0].rabbitmq.url: the password goes to rabbit:5672 in plain text: write amqps://",
		"rabbitmq: {url: 'amqps://u@rabbit/', management: 'http://rabbit:15672'}":                                                 "pipelines[0].rabbitmq.management: the password of relay doctor goes to rabbit:15672 in plain text: write https://",
		"rabbitmq: {url: 'amqp://u@rabbit/', password: hunter2}":                                                                  "goes to rabbit in plain text",
		"wire: {format: confluent, registry: {url: 'http://registry:8081', token: hunter2}}, kafka: {brokers: [b]}":               "pipelines[0].wire.registry.url: the password or token goes to registry:8081 in plain text: write https://",

		"kafka: {brokers: ['localhost:9092', '127.0.0.1:1', '[::1]:9092'], username: u, password: hunter2}": "",
		"kafka: {brokers: ['kafka-1:9092']}":                                                                      "",
		"kafka: {brokers: ['kafka-1:9092'], tls: {}, username: u, password: hunter2}":                             "",
		"kafka: {brokers: ['kafka-1:9092'], mechanism: scram-sha-256, username: u, password: hunter2}":            "",
		"rabbitmq: {url: 'amqps://u:hunter2@rabbit/'}":                                                            "",
		"rabbitmq: {url: 'amqp://u:hunter2@localhost/'}":                                                          "",
		"wire: {format: confluent, registry: {url: 'http://registry:8081'}}, kafka: {brokers: [b]}":               "",
		"wire: {format: confluent, registry: {url: 'https://registry', token: hunter2}}, kafka: {brokers: [b]}":   "",
		"wire: {format: confluent, registry: {url: 'http://127.0.0.1:1', token: hunter2}}, kafka: {brokers: [b]}": "",
	} {
		text := fmt.Sprintf("database: {url: postgres://h/d}\n\npipelines:\n  - {name: x, %s}\n", pipeline)
		_, v, err := settings{path: writeConfig(t, text)}.checked()
		require.NoError(t, err)
		require.NoError(t, v.err(), text)
		v.warnings = slices.DeleteFunc(v.warnings, func(w string) bool {
			return strings.HasPrefix(w, "the environment variable OUTBOXKIT_") // the addresses of the tests' servers
		})
		warnings := strings.Join(v.warnings, "\n")
		require.NotContains(t, warnings, "hunter2")
		if want == "" {
			require.Empty(t, warnings, text)
		} else {
			require.Contains(t, warnings, want)
			require.Len(t, v.warnings, 1)
		}
	}
}

// What run would refuse, check refuses: it reads the listener's files too.
func TestCheckReadsTheFilesOfTheAdminListener(t *testing.T) {
	t.Parallel()
	text := plainConfig + "admin: {tls: {cert_file: /no/such.crt, key_file: /no/such.key}}\n"
	_, v, err := settings{path: writeConfig(t, text)}.checked()
	require.NoError(t, err)
	require.ErrorContains(t, v.err(), "relay.yaml:3: admin.tls: /no/such.crt with /no/such.key: open /no/such.crt: no such file")
	_, err = loadConfig(writeConfig(t, text))
	require.NoError(t, err, "other commands do without them")
}
