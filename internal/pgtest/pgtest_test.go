package pgtest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestDatabasesAreSeparateAndDropped(t *testing.T) {
	var name string
	admin := pgtest.Pool(t)
	t.Run("use", func(t *testing.T) {
		a, b := pgtest.Pool(t), pgtest.Pool(t)
		_, err := a.Exec(t.Context(), "CREATE TABLE t(n int)")
		require.NoError(t, err)
		_, err = b.Exec(t.Context(), "CREATE TABLE t(n int)")
		require.NoError(t, err)
		require.NoError(t, a.QueryRow(t.Context(), "SELECT current_database()").Scan(&name))

		// What a test may leave behind: a prepared and an open transaction.
		_, err = a.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left ''behind "+name+"'")
		require.NoError(t, err)
		_, err = a.Begin(t.Context())
		require.NoError(t, err)
	})
	var left int
	require.NoError(t, admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&left))
	require.Zero(t, left)
}

func TestInParallel(t *testing.T) {
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			require.NoError(t, pgtest.Pool(t).Ping(t.Context()))
		})
	}
}

func TestOwnSurvivesACrash(t *testing.T) {
	s := pgtest.Own(t)
	require.NoError(t, s.Kill())
	require.NoError(t, s.Start(t.Context()))
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

// TestNothingIsLeftRunning runs this test binary again and ends it in the ways
// that a test process ends.
func TestNothingIsLeftRunning(t *testing.T) {
	for name, end := range map[string]func(*os.Process) error{
		"exit":    func(*os.Process) error { return nil },
		"SIGTERM": func(p *os.Process) error { return p.Signal(syscall.SIGTERM) },
		"SIGKILL": func(p *os.Process) error { return p.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireServerEnds(t, name != "exit", end)
		})
	}
}

func requireServerEnds(t *testing.T, hang bool, end func(*os.Process) error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "OUTBOXKIT_POSTGRES_URL=", "PGTEST_CHILD="+file, "PGTEST_HANG="+strconv.FormatBool(hang))
	require.NoError(t, cmd.Start())
	var pid int
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(file)
		if err == nil {
			pid, err = strconv.Atoi(string(b))
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, end(cmd.Process))
	_ = cmd.Wait()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH },
		10*time.Second, 10*time.Millisecond, "the server is still running")
}

func TestChild(t *testing.T) {
	file := os.Getenv("PGTEST_CHILD")
	if file == "" {
		return // runs only as a child of TestNothingIsLeftRunning
	}
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var postmaster string
	require.NoError(t, conn.QueryRow(t.Context(),
		"SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)").Scan(&postmaster))
	require.NoError(t, os.WriteFile(file+".tmp", []byte(postmaster), 0o600))
	require.NoError(t, os.Rename(file+".tmp", file))
	if os.Getenv("PGTEST_HANG") == "true" {
		select {}
	}
}
