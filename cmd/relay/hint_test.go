package main

import (
	"errors"
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestHints(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{"28P01": "password is wrong", "42501": "relay migrate sql", "53300": "max_connections"} {
		require.Contains(t, explained(fmt.Errorf("x: %w", &pgconn.PgError{Code: code})), want)
	}
	require.Equal(t, "amqp://u:***@h", explained(errors.New("amqp://u:hunter2@h")))

	u, err := url.Parse(pgtest.URL(t))
	require.NoError(t, err)
	u.Path = "/none_such"
	out, code := runRelay(t, "migrate", "status", "--database-url", u.String())
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "is the database's name in the URL right?")
	path := writeConfig(t, "database: {url: 'postgres://u:hunter2@127.0.0.1:1/d'}\npipelines: [{name: x, kafka: {brokers: ['127.0.0.1:1']}}]\n")
	out, code = runRelay(t, "pipeline", "list", "--config", path)
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "is Postgres up")
	out, code = runRelay(t, "status", "--config", path)
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "is Postgres up")
}
