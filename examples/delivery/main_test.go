package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

const (
	envMain   = "DELIVERY_TEST_MAIN"   // this process is the example, not its test
	envTamper = "DELIVERY_TEST_TAMPER" // it breaks promises before the verdict
)

// TestMain makes the test binary the example too, which runs itself as its
// services.
func TestMain(m *testing.M) {
	if os.Getenv(envMain) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(envTamper) == "" || os.Args[1] == "service" {
		main()
	}
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr, plant))
}

// plant loses one row of history, doubles another, and breaks a third one's chain.
func plant(ctx context.Context, s *stage) error {
	_, err := s.history.Exec(ctx, `
		DELETE FROM history WHERE delivery_id = 'delivery-1' AND what = 'in transit';
		INSERT INTO history (delivery_id, what, detail, event_id, caused_by, request, happened_at)
			SELECT delivery_id, what, detail, event_id, caused_by, request, happened_at FROM history WHERE delivery_id = 'delivery-2' AND what = 'created';
		UPDATE history SET caused_by = 'drone-1/1' WHERE delivery_id = 'delivery-3' AND what = 'completed'`)
	return err
}

type example struct {
	*exec.Cmd
	stdout, stderr *bufio.Reader
}

func start(t *testing.T, env string, args ...string) example {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), envMain+"=1", env)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return example{cmd, bufio.NewReader(stdout), bufio.NewReader(stderr)}
}

// end reads the rest, waits, and checks that nothing is left behind.
func (e example) end(t *testing.T) (code int, stdout, stderr string) {
	t.Helper()
	errs := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(e.stderr)
		errs <- b
	}()
	out, err := io.ReadAll(e.stdout)
	require.NoError(t, err)
	stderr = string(<-errs)
	_ = e.Wait() // the exit code says it
	left, err := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("outboxkit-%d-*", e.Process.Pid)))
	require.NoError(t, err)
	require.Empty(t, left)
	return e.ProcessState.ExitCode(), string(out), stderr
}

// TestEveryDeliveryHasItsHistory runs the whole example: duplicates, a killed
// translator with its relay, a killed history service.
func TestEveryDeliveryHasItsHistory(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]func(t *testing.T) []string{
		"kafka": func(t *testing.T) []string {
			return []string{"--kafka", strings.Join(svctest.Kafka(t), ",")}
		},
		"rabbitmq": func(t *testing.T) []string { return []string{"--amqp", svctest.RabbitMQ(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 160
			args := append(flags(t), "--json", "--deliveries", fmt.Sprint(n))
			code, stdout, stderr := start(t, "", args...).end(t)
			require.Zero(t, code, "%s%s", stdout, stderr)
			var r report
			require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
			require.True(t, r.Held)
			require.Len(t, r.Promises, 8)
			require.Equal(t, n, r.Deliveries)
			require.Equal(t, n/4*(5+6+7+4), r.Reports)
			require.Equal(t, n/4*(3+5+5+3), r.Events)
			require.Equal(t, r.Events, r.History)
			require.Greater(t, r.Repeated, r.Reports)
			require.Equal(t, 2, r.Kills)
			t.Logf("%+v", r)
		})
	}
}

func TestBrokenPromisesAreNamed(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := start(t, envTamper+"=1", "--deliveries", "8").end(t)
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stdout, "BROKEN: nothing lost\n  loss of delivery-1#2: ")
	require.Contains(t, stdout, "BROKEN: each event once in the history\n  double of delivery-2#1: ")
	require.Contains(t, stdout, "BROKEN: every event names its cause\n  delivery-3, completed in the history: cause \"drone-1/1\"")
	require.Equal(t, 3, strings.Count(stdout, "BROKEN"), stdout)
	require.NotContains(t, stdout, "Every promise held")
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	e := start(t, "", "--deliveries", "2000")
	for line := ""; !strings.Contains(line, "is killed"); {
		var err error
		line, err = e.stdout.ReadString('\n')
		require.NoError(t, err)
	}
	require.NoError(t, e.Process.Signal(syscall.SIGINT))
	code, stdout, stderr := e.end(t)
	require.Equal(t, 130, code, stderr)
	require.NotContains(t, stdout, "promise")
	require.Contains(t, stderr, "interrupted")
}

func TestBadFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"--deliveries 3 is outside 8 to 100000":          {"--deliveries", "3"},
		"if any flags in the group [kafka amqp] are set": {"--kafka", "a:1", "--amqp", "amqp://b"},
		`no service "shop": delivery or history`:         {"service", "shop", "--database", "postgres://localhost/none"},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, 1, execute(t.Context(), args, &out, &errs, nil))
		require.Contains(t, errs.String(), want)
	}
}
