package proc_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// shell starts a script and waits until it has written its first line.
func shell(t *testing.T, script string) *proc.Process {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	p, err := proc.Start(proc.Spec{Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}, LogFile: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Kill()) })
	require.NoError(t, p.WaitReady(t.Context(), func(context.Context) error {
		if b, err := os.ReadFile(log); err != nil || len(b) == 0 {
			return fmt.Errorf("nothing written yet: %w", err)
		}
		return nil
	}))
	return p
}

func requireGone(t *testing.T, p *proc.Process) {
	t.Helper()
	require.ErrorIs(t, syscall.Kill(-p.Pid(), 0), syscall.ESRCH)
}

func TestStopTakesWhatTheProcessStartedWithIt(t *testing.T) {
	p := shell(t, "sleep 300 & trap 'exit 3' TERM; echo ready; wait")
	require.NoError(t, p.Stop(t.Context(), syscall.SIGTERM))
	require.Equal(t, 3, p.ExitCode())
	requireGone(t, p)
}

func TestStopKillsWhatDoesNotStop(t *testing.T) {
	p := shell(t, "trap '' TERM; echo ready; while :; do sleep 1; done")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, p.Stop(ctx, syscall.SIGTERM), "killed, it had not stopped after terminated")
	require.Equal(t, 128+9, p.ExitCode())
	requireGone(t, p)
}

func TestWaitReadyShowsWhyTheProcessEnded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := proc.Start(proc.Spec{Name: "shell", Path: "/bin/sh", Args: []string{"-c", "echo no disk; exit 1"}, LogFile: log})
	require.NoError(t, err)
	err = p.WaitReady(t.Context(), func(context.Context) error { return os.ErrNotExist })
	require.ErrorContains(t, err, "no disk")
}

func TestTempDirsOfDeadProcessesGo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dead := exec.Command("true")
	require.NoError(t, dead.Run())
	orphan := filepath.Join(os.TempDir(), fmt.Sprintf("outboxkit-%d-kafka-1", dead.Process.Pid))
	require.NoError(t, os.MkdirAll(filepath.Join(orphan, "data"), 0o700))

	ours, err := proc.TempDir("kafka", nil)
	require.NoError(t, err)
	_, err = proc.TempDir("kafka", nil)
	require.NoError(t, err)
	require.NoDirExists(t, orphan)
	require.DirExists(t, ours)
}
