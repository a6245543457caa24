package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const (
	envMain   = "DEMO_TEST_MAIN"   // this process is the demo, not its test
	envTamper = "DEMO_TEST_TAMPER" // it breaks two promises before the verdict
)

// TestMain makes the test binary the demo too, which runs itself as the relay.
func TestMain(m *testing.M) {
	if os.Getenv(envMain) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(envTamper) == "" {
		main()
	}
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr, plant))
}

// plant drops one effect and doubles another.
func plant(ctx context.Context, s *stage) error {
	if _, err := s.inventory.Exec(ctx, "DELETE FROM reservations WHERE n = 5"); err != nil {
		return err
	}
	_, err := s.notification.Exec(ctx, `INSERT INTO messages (order_id, user_id, body, event_id)
		SELECT order_id, user_id, body, event_id FROM messages WHERE n = 5`)
	return err
}

// demo is a running demo.
type demo struct {
	*exec.Cmd
	stdout, stderr *bufio.Reader
}

func start(t *testing.T, env string, args ...string) demo {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), envMain+"=1", env)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return demo{cmd, bufio.NewReader(stdout), bufio.NewReader(stderr)}
}

// waitFor reads lines until one contains text.
func waitFor(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		all.WriteString(line)
		require.NoError(t, err, "waiting for %q in:\n%s", text, all.String())
		if strings.Contains(line, text) {
			return
		}
	}
}

// end reads the rest, waits, and checks that nothing is left behind.
func (d demo) end(t *testing.T) (code int, stdout, stderr string) {
	t.Helper()
	errs := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(d.stderr)
		errs <- b
	}()
	out, err := io.ReadAll(d.stdout)
	require.NoError(t, err)
	stderr = string(<-errs)
	_ = d.Wait() // the exit code says it
	left, err := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("outboxkit-%d-*", d.Process.Pid)))
	require.NoError(t, err)
	require.Empty(t, left)
	return d.ProcessState.ExitCode(), string(out), stderr
}

func TestEveryPromiseHolds(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := start(t, "", "--json", "--orders", "160").end(t)
	require.Zero(t, code, stderr)
	var r report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.True(t, r.Held)
	require.Len(t, r.Promises, 6)
	require.Equal(t, 140+1, r.Orders.Written) // and the poison
	require.Equal(t, 20, r.Orders.RolledBack)
	require.Positive(t, r.Orders.Copies)
	require.Len(t, r.Services, 2)
	for _, s := range r.Services {
		require.Equal(t, 140, s.Effects, s.Name)
		require.Equal(t, 1, s.DeadLettered, s.Name)
		require.Equal(t, r.Orders.Published+r.Orders.Copies, s.Delivered, s.Name)
		require.Equal(t, r.Orders.Repeated+r.Orders.Copies, s.Duplicates, s.Name)
	}
}

func TestBrokenPromisesAreNamed(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := start(t, envTamper+"=1", "--orders", "40").end(t)
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stdout, "BROKEN: nothing lost\n  inventory: loss of ")
	require.Contains(t, stdout, "BROKEN: once in each consumer's database\n  notification: double of ")
	require.NotContains(t, stdout, "Every promise held")
	require.Equal(t, 2, strings.Count(stdout, "BROKEN"), stdout)
}

// TestKeepUntilInterrupted writes two events in the ways that --keep offers, and
// sees them take effect.
func TestKeepUntilInterrupted(t *testing.T) {
	t.Parallel()
	d := start(t, "", "--keep", "--json", "--orders", "40")
	var r report
	// The decoder may read ahead: nothing comes after the report.
	require.NoError(t, json.NewDecoder(d.stdout).Decode(&r))
	require.True(t, r.Held)
	require.NotNil(t, r.Connections)

	var out, errs bytes.Buffer
	require.Contains(t, r.Connections.Write, " write --database '"+r.Connections.Databases["orders"]+"'")
	args := []string{"write", "--database", r.Connections.Databases["orders"], "--user", "me"}
	require.Zero(t, execute(t.Context(), args, &out, &errs, nil), errs.String())
	require.Contains(t, out.String(), "of me is committed")
	waitFor(t, d.stderr, "of me has taken effect")

	_, sql, ok := strings.Cut(strings.TrimSuffix(r.Connections.Psql, `"`), `-c "`)
	require.True(t, ok, r.Connections.Psql)
	conn, err := pgx.Connect(t.Context(), r.Connections.Databases["orders"])
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	waitFor(t, d.stderr, "order 0 of you has taken effect")

	require.NoError(t, d.Process.Signal(syscall.SIGINT))
	code, _, stderr := d.end(t)
	require.Zero(t, code, stderr)
	address, err := url.Parse(r.Connections.Databases["orders"])
	require.NoError(t, err)
	for _, a := range append(r.Connections.Kafka, address.Host) {
		_, err := net.DialTimeout("tcp", a, time.Second)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "%s is still there", a)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	d := start(t, "", "--orders", "2000")
	waitFor(t, d.stdout, "the relay is killed")
	require.NoError(t, d.Process.Signal(syscall.SIGINT))
	code, stdout, stderr := d.end(t)
	require.Equal(t, 130, code, stderr)
	require.NotContains(t, stdout, "promise")
	require.Contains(t, stderr, "interrupted")
}

func TestBadFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"--orders 3 is outside 20 to 1000000": {"--orders", "3"},
		`required flag(s) "database" not set`: {"write"},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, 1, execute(t.Context(), args, &out, &errs, nil))
		require.Contains(t, errs.String(), want)
	}
}

// TestScreen: on a terminal the status line gives way to lines that stay.
func TestScreen(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b)
	require.False(t, s.live)
	s.live = true
	s.update("40%")
	s.say("hello")
	require.Regexp(t, `^\r\x1b\[K40%\r\x1b\[K +\d\.\ds  hello\n40%$`, b.String())
}
