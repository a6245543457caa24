package health_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/relay/health"
)

// A service embeds a relay whose Postgres is away: the relay goes on trying, what
// the service's probes and operators ask is answered with 200, and it stops when
// the service does.
func TestEmbeddedRelayWithoutPostgres(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	require.NoError(t, err)
	defer pool.Close()
	r, err := relay.New(pool, relay.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Pipelines: []relay.Pipeline{{Name: "memory", To: brokertest.NewMemory(brokertest.MemoryConfig{}).Publisher()}},
	})
	require.NoError(t, err)
	of := health.Relay{Health: r.Health}
	mux := http.NewServeMux()
	mux.Handle("/", health.Live())
	mux.Handle("/progress", health.Progress(of))

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	require.Eventually(t, func() bool {
		_, text := get(health.Ready(of))
		return r.Health().Reason != "" && text == "0 of 1 relays are ready\n" && r.Health().Pipelines[0].Cause == relay.CausePostgres
	}, 20*time.Second, 10*time.Millisecond)
	for range 20 {
		code, _ := get(mux)
		require.Equal(t, http.StatusOK, code)
		code, _ = get(health.Progress(of))
		require.Equal(t, http.StatusOK, code)
	}
	select {
	case err := <-done:
		t.Fatalf("Run has given up: %v", err)
	default:
	}
	cancel()
	require.NoError(t, <-done)
}
