package e2e

import (
	"io"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// onTerminal runs a command on a terminal of its own and returns what it showed.
func onTerminal(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	master, terminal := svctest.Terminal(t)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	require.NoError(t, cmd.Start())
	require.NoError(t, terminal.Close())
	shown, _ := io.ReadAll(master) // EIO at the end, when nobody has it open any more
	require.NoError(t, cmd.Wait(), string(shown))
	return string(shown)
}
