package main

import (
	"bufio"
	"io"
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

// TestMain makes this test binary the command when a test runs it as that.
func TestMain(m *testing.M) {
	if os.Getenv("SERVICES_TEST_MAIN") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// services returns the command with only Postgres to start: what is tested here
// is the same for all services.
func services(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if missing := missingPackages(); len(missing) > 0 {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal("not installed: ", missing)
		}
		t.Skip("not installed: ", missing)
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SERVICES_TEST_MAIN=1", "OUTBOXKIT_POSTGRES_URL=",
		"OUTBOXKIT_KAFKA_BROKERS=given:1", "OUTBOXKIT_AMQP_URL=amqp://given", "OUTBOXKIT_REGISTRY_URL=http://given")
	return cmd
}

func requireNoServer(t *testing.T, url string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := pgx.Connect(t.Context(), strings.TrimSpace(url))
		return err != nil && strings.Contains(err.Error(), "connection refused")
	}, 10*time.Second, 20*time.Millisecond, "%s still answers", url)
}

func TestRunExitsAsTheCommandAndLeavesNothing(t *testing.T) {
	t.Parallel()
	cmd := services(t, "run", "--", "sh", "-c", `echo "$OUTBOXKIT_POSTGRES_URL"; echo "$OUTBOXKIT_KAFKA_BROKERS" >&2; sleep 300 & exit 7`)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output() // returns only when the "sleep" is gone too
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 7, exit.ExitCode())
	require.Contains(t, stderr.String(), "given:1\n")
	requireNoServer(t, string(out))
}

func TestSignalsStopEverything(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "url")
			cmd := services(t, "run", "--", "sh", "-c", `echo "$OUTBOXKIT_POSTGRES_URL" > "$0.tmp"; mv "$0.tmp" "$0"; exec sleep 300`, file)
			output, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			var url []byte
			require.Eventually(t, func() bool {
				url, err = os.ReadFile(file)
				return err == nil
			}, time.Minute, 10*time.Millisecond)

			require.NoError(t, cmd.Process.Signal(sig))
			gone := make(chan error, 1) // output ends when the command and its "sleep" are gone
			go func() {
				_, err := io.ReadAll(output)
				gone <- err
			}()
			select {
			case err := <-gone:
				require.NoError(t, err)
			case <-time.After(30 * time.Second):
				t.Fatal("the command is still running")
			}
			require.Error(t, cmd.Wait())
			requireNoServer(t, string(url))
		})
	}
}

// Ctrl-C is the way to stop "up", so it is no failure.
func TestUpEndsWellOnCtrlC(t *testing.T) {
	t.Parallel()
	cmd := services(t, "up")
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var url string
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "export OUTBOXKIT_POSTGRES_URL="); ok {
			url = strings.Trim(address, "'")
		}
		if strings.HasPrefix(lines.Text(), "export OUTBOXKIT_REGISTRY_URL=") { // the last
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
		}
	}
	require.NoError(t, cmd.Wait())
	require.NotEmpty(t, url)
	requireNoServer(t, url)
}

func TestWithoutPackagesTheMessageSaysWhatToInstall(t *testing.T) {
	cmd := exec.Command(os.Args[0], "up")
	cmd.Env = []string{"SERVICES_TEST_MAIN=1", "PATH=" + t.TempDir(), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "apt-get install --no-install-recommends default-jre-headless gcc")
}
