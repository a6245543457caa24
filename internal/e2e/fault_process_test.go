//go:build faults

package e2e

import (
	"os"
	"syscall"

	"github.com/stretchr/testify/require"
)

// send sends sig and does not wait.
func (p *process) send(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Errorf("signal %s: %v", p.name, err)
	}
}

// output is what it has printed, over all its starts.
func (p *process) output() string {
	p.t.Helper()
	text, err := os.ReadFile(p.log.Name())
	require.NoError(p.t, err)
	return string(text)
}

func (p *process) startsSoFar() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// runs reports whether it has not ended.
func (p *process) runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && len(p.exited) == 0
}
