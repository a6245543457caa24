package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/svctest"
)

// On a terminal the status is drawn in place, and the terminal is left in order.
func TestStatusWatchOnATerminal(t *testing.T) {
	t.Parallel()
	url, _ := outboxAs(t)
	path := writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines: [{name: x, kafka: {brokers: ['127.0.0.1:1']}}]\n", url))
	master, terminal := svctest.Terminal(t)
	var unused output
	cmd := command(t, &unused, "status", "--config", path, "--watch", "--every", "50ms")
	cmd.Stdout, cmd.Stderr = terminal, terminal
	require.NoError(t, cmd.Start())
	require.NoError(t, terminal.Close())
	var shown output
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			_, _ = shown.Write(buffer[:n])
			if err != nil { // EIO when nobody has it open any more
				return
			}
		}
	}()
	require.Eventually(t, func() bool { return strings.Count(shown.String(), "\x1b[H") >= 3 }, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, cmd.Wait(), shown.String())
	<-read
	text := shown.String()
	require.Equal(t, 1, strings.Count(text, "\x1b[2J"), "cleared once")
	require.Contains(t, text, "BACKLOG")
	require.True(t, strings.HasSuffix(text, "\n"))
}
