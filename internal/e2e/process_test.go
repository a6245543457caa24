package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// process is a child that can be killed and started again.
type process struct {
	t    *testing.T
	name string
	log  *os.File
	new  func() *exec.Cmd

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan error
	kills  int
	starts int
}

// start runs the command now and until the test ends. What it prints is shown
// if the test fails.
func start(t *testing.T, name string, newCmd func() *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	require.NoError(t, err)
	p := &process{t: t, name: name, log: log, new: newCmd}
	p.run()
	t.Cleanup(func() {
		_ = p.signal(syscall.SIGKILL)
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("output of %s:\n%s", name, tail(text, 8000))
		}
		_ = log.Close()
	})
	return p
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func (p *process) run() {
	cmd := p.new()
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Errorf("start %s: %v", p.name, err)
		return
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.exited = cmd, exited
	p.starts++
}

// signal sends sig and waits until the process has ended.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	_ = cmd.Process.Signal(sig)
	err := <-exited
	exited <- err // for whoever asks next
	return err
}

// kill is SIGKILL and a new start.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL)
	p.kills++
	p.run()
}
