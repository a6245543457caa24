package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// Logs have no payload and no password, not at the lowest level and not of events
// that are refused, wait or cannot be published.
func TestPayloadsAreNotLogged(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "--database-url", url)
	require.Zero(t, code, out)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	for topic, payload := range map[string]string{"refused": `{"card": ` + secret, "waits": `{"card": "` + secret + `"}`} {
		_, err = conn.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, content_type, payload)
			VALUES ($1, 'k', 't', 's', 'application/json', convert_to($2, 'UTF8'))`, topic, payload)
		require.NoError(t, err)
	}
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
log: {level: debug}
drain_timeout: 1s
admin: {listen: 127.0.0.1:0, token: 0123456789-%s}
pipelines:
  - name: x # alone in its page: what is parked is stored with the position after the page
    validate: true
    filter: {topics: [refused]}
    kafka: {brokers: ['127.0.0.1:1'], username: u, password: %s}
  - name: y
    kafka: {brokers: ['127.0.0.1:1'], publish_timeout: 1s, username: u, password: %s}
  - name: z
    rabbitmq: {url: 'amqp://u:%s@127.0.0.1:1/'}
`, url, secret, secret, secret, secret))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	require.Eventually(t, func() bool {
		var parked int
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM outbox.parked`).Scan(&parked)
		log := log.String()
		return err == nil && parked > 0 && strings.Contains(log, "events parked") && strings.Contains(log, `trying again" pipeline=y`) && strings.Contains(log, `trying again" pipeline=z`)
	}, time.Minute, 20*time.Millisecond, "no event was parked, or none failed")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
	require.NotContains(t, log.String(), secret)
}
