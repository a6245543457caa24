package pgbouncer_test

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/services/pgbouncer"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestFailoverBehindThePooler shows a client that notices nothing of a failover
// but one failed query.
func TestFailoverBehindThePooler(t *testing.T) {
	if err := pgbouncer.Available(); err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	primary := pgtest.Own(t)
	standby, err := primary.Standby(ctx, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close(context.Background())) })
	pooler, err := pgbouncer.Start(ctx, primary.Addr())
	require.NoError(t, err)

	cfg, err := pgx.ParseConfig(pooler.URL("postgres"))
	require.NoError(t, err)
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	require.NoError(t, err)
	defer conn.Close(ctx)
	port := func() (n int, err error) {
		err = conn.QueryRow(ctx, "SELECT inet_server_port()").Scan(&n)
		return n, err
	}
	n, err := port()
	require.NoError(t, err)
	require.Equal(t, primary.Port(), n)

	require.NoError(t, primary.Kill())
	require.NoError(t, standby.Promote(ctx))
	require.NoError(t, pooler.Route(ctx, standby.Addr()))
	require.Eventually(t, func() bool {
		n, err = port()
		return err == nil
	}, 20*time.Second, 20*time.Millisecond, "%v", err)
	require.Equal(t, standby.Port(), n)

	pid := pooler.Pid()
	require.NoError(t, pooler.Close(ctx))
	require.ErrorIs(t, syscall.Kill(-pid, 0), syscall.ESRCH)
}
