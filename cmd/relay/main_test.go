package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// envMain turns the test binary into the relay, so that tests run it as its
// users do: as a process with signals and an exit code.
const envMain = "RELAY_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(envMain) != "" {
		main()
		os.Exit(0)
	}
	pgtest.Main(m)
}

// output collects what a process prints while others read it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func command(t *testing.T, out *output, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	// Those of the tests' own servers would be warned about.
	ours := func(variable string) bool { return strings.HasPrefix(variable, envPrefix) }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), ours), envMain+"=1")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// runRelay runs to the end and returns what it printed and its exit code, which is -1
// for a command that does not end.
func runRelay(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out output
	cmd := command(t, &out, args...)
	require.NoError(t, cmd.Start())
	defer time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	_ = cmd.Wait() // the code says it
	return out.String(), cmd.ProcessState.ExitCode()
}
