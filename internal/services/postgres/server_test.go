package postgres_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

func start(t *testing.T, cfg postgres.Config) *postgres.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := postgres.Start(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })
	return s
}

func exec(t *testing.T, s *postgres.Server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func count(t *testing.T, s *postgres.Server, sql string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&n))
	return n
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.ErrorIs(t, syscall.Kill(-pid, 0), syscall.ESRCH, "process group %d", pid)
}

func TestServerKeepsDataOverStopAndKill(t *testing.T) {
	s := start(t, postgres.Config{Durable: true})
	exec(t, s, "CREATE TABLE t AS SELECT generate_series(1, 10) AS n")

	pid := s.Pid()
	require.NoError(t, s.Kill())
	requireGone(t, pid)
	require.NoError(t, s.Start(t.Context()))
	require.Equal(t, 10, count(t, s, "SELECT count(*) FROM t"))

	pid = s.Pid()
	require.NoError(t, s.Stop(t.Context()))
	requireGone(t, pid)
	require.NoError(t, s.Start(t.Context()))
	require.Equal(t, 10, count(t, s, "SELECT count(*) FROM t"))
}

func TestKillLeavesNoBackend(t *testing.T) {
	s := start(t, postgres.Config{})
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	backend := int(conn.PgConn().PID())
	busy := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(300)")
		busy <- err
	}()
	require.Eventually(t, func() bool {
		return count(t, s, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
	}, 10*time.Second, 10*time.Millisecond)

	require.NoError(t, s.Kill())
	require.Error(t, <-busy)
	require.ErrorIs(t, syscall.Kill(backend, 0), syscall.ESRCH)
}

func TestPromotedStandbyLacksWhatItDidNotReceive(t *testing.T) {
	primary := start(t, postgres.Config{})
	exec(t, primary, "CREATE TABLE t AS SELECT 1 AS n")
	standby, err := primary.Standby(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close(context.Background())) })
	exec(t, primary, "INSERT INTO t VALUES (2)")
	require.NoError(t, standby.CatchUp(t.Context(), primary))
	require.Equal(t, 2, count(t, standby, "SELECT count(*) FROM t"))

	require.NoError(t, standby.Detach(t.Context()))
	exec(t, primary, "INSERT INTO t VALUES (3)")
	require.NoError(t, primary.Kill())
	require.NoError(t, standby.Promote(t.Context()))
	exec(t, standby, "INSERT INTO t VALUES (4)")
	require.Equal(t, 7, count(t, standby, "SELECT sum(n) FROM t"))
}

func TestConfigErrorsNameTheField(t *testing.T) {
	_, err := postgres.Start(t.Context(), postgres.Config{Version: "fifteen", Port: 70000})
	require.ErrorContains(t, err, `Config.Version "fifteen"`)
	require.ErrorContains(t, err, "Config.Port 70000")
}

func TestClockIsSet(t *testing.T) {
	if err := postgres.ClockAvailable(); err != nil {
		t.Skip(err)
	}
	server := start(t, postgres.Config{Clock: true})
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		require.NoError(t, server.SetClock(ahead))
		require.Eventually(t, func() bool {
			conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
			require.NoError(t, err)
			defer conn.Close(t.Context())
			var now time.Time
			require.NoError(t, conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&now))
			return time.Now().Add(ahead).Sub(now).Abs() < time.Minute
		}, 10*time.Second, 50*time.Millisecond)
	}
}
