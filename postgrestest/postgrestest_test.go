package postgrestest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/postgrestest"
)

// There is no TestMain: users' packages need none.

func TestPoolsAreMigratedAndSeparate(t *testing.T) {
	t.Parallel()
	own := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE TABLE orders (id text PRIMARY KEY)`)
		return err
	}
	for range 2 {
		pool := postgrestest.Pool(t, migrate.Outbox("").Up, migrate.Inbox("").Up, own)
		_, err := pool.Exec(t.Context(), `INSERT INTO orders SELECT 'o-1' WHERE to_regclass('outbox.event') IS NOT NULL AND to_regclass('inbox.seen') IS NOT NULL`)
		require.NoError(t, err)
		var n int
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM orders`).Scan(&n))
		require.Equal(t, 1, n)
	}
}

// recorder is a testing.TB that fails alone.
type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatal(args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			r.text = err.Error()
		}
	}
	runtime.Goexit()
}

func TestAFailedMigrationIsNamed(t *testing.T) {
	t.Parallel()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		postgrestest.Pool(r, migrate.Inbox("").Up, func(context.Context, *pgx.Conn) error { return errors.New("no such file") })
	}()
	<-done
	require.Equal(t, "migration 2 of 2: no such file", r.text)
}

// TestNothingIsLeftBehind runs this test binary again and ends it in the ways
// that a test process ends.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*os.Process) error{
		"exit":    func(*os.Process) error { return nil },
		"SIGINT":  func(p *os.Process) error { return p.Signal(syscall.SIGINT) },
		"SIGKILL": func(p *os.Process) error { return p.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			temp := t.TempDir()
			require.NoError(t, os.Chmod(temp, 0o755)) // the server may run as another user
			require.NoError(t, os.Chmod(filepath.Dir(temp), 0o755))
			file := filepath.Join(t.TempDir(), "data")
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
			cmd.Env = append(os.Environ(), "OUTBOXKIT_POSTGRES_URL=", "TMPDIR="+temp, "POSTGRESTEST_CHILD="+file, "POSTGRESTEST_WAIT="+name)
			require.NoError(t, cmd.Start())
			var answer []string
			require.Eventually(t, func() bool {
				b, err := os.ReadFile(file)
				answer = strings.Split(string(b), "\n")
				return err == nil
			}, time.Minute, 10*time.Millisecond)
			require.NoError(t, end(cmd.Process))
			_ = cmd.Wait()
			require.Eventually(t, func() bool {
				conn, err := pgx.Connect(context.Background(), answer[1])
				if err == nil {
					_ = conn.Close(context.Background())
				}
				left, _ := filepath.Glob(filepath.Join(temp, "outboxkit-*"))
				return err != nil && len(left) == 0
			}, 20*time.Second, 20*time.Millisecond, "the server or its data is still there: %s", answer[0])
		})
	}
}

func TestChild(t *testing.T) {
	file := os.Getenv("POSTGRESTEST_CHILD")
	if file == "" {
		return // runs only as a child of TestNothingIsLeftBehind
	}
	url := postgrestest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var data string
	require.NoError(t, conn.QueryRow(t.Context(), `SHOW data_directory`).Scan(&data))
	require.NoError(t, os.WriteFile(file+".tmp", []byte(data+"\n"+url), 0o600))
	require.NoError(t, os.Rename(file+".tmp", file))
	if os.Getenv("POSTGRESTEST_WAIT") != "exit" {
		select {}
	}
}
