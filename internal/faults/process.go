package faults

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// process is a child that is started again whenever it has ended, as a platform
// does it.
type process struct {
	name, kind string
	log        string
	spec       func(start int) (proc.Spec, error)

	mu       sync.Mutex
	now      *proc.Process // the latest
	starts   int
	wanted   bool // it is started again
	told     bool // it was told to end, so its end is no news
	ended    int  // ends of its own accord
	problems []string
	keeper   sync.WaitGroup
}

// grace is how long a process may take to end after SIGTERM: a pod has 30 s.
const grace = 30 * time.Second

// run starts it and keeps it.
func (p *process) run() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	if err := p.start(); err != nil {
		return err
	}
	p.keeper.Go(p.keep)
	return nil
}

// start is called with mu held.
func (p *process) start() error {
	spec, err := p.spec(p.starts)
	if err != nil {
		return err
	}
	spec.Name, spec.LogFile = p.name, p.log
	now, err := proc.Start(spec)
	if err != nil {
		return err
	}
	p.now, p.starts, p.told = now, p.starts+1, false
	return nil
}

func (p *process) keep() {
	for {
		p.mu.Lock()
		now := p.now
		p.mu.Unlock()
		code := now.ExitCode()
		p.mu.Lock()
		if !p.told {
			p.ended++
			p.problems = append(p.problems, fmt.Sprintf("%s ended by itself with exit code %d", p.name, code))
		}
		if !p.wanted {
			p.mu.Unlock()
			return
		}
		if err := p.start(); err != nil {
			p.problems = append(p.problems, fmt.Sprintf("%s cannot be started again: %v", p.name, err))
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

// signal sends sig to the process as it is now.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil {
		_ = syscall.Kill(p.now.Pid(), sig) // it may have ended just now
	}
}

// kill is SIGKILL; it is started again at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = true
	_ = syscall.Kill(p.now.Pid(), syscall.SIGKILL)
}

// redeploy is SIGTERM, and a new start when it has ended. It returns the exit code:
// it need not be 0 while servers are away.
func (p *process) redeploy(ctx context.Context) (code int) {
	p.mu.Lock()
	now := p.now
	p.told = true
	_ = syscall.Kill(now.Pid(), syscall.SIGTERM)
	p.mu.Unlock()
	select {
	case <-now.Done():
		return now.ExitCode()
	case <-time.After(grace):
		p.problem("%s had not ended %s after SIGTERM", p.name, grace)
		_ = now.Kill()
	case <-ctx.Done():
	}
	return 0
}

// stop ends it for good, and cleanly.
func (p *process) stop(ctx context.Context) {
	p.mu.Lock()
	p.wanted = false
	running := p.now != nil
	p.mu.Unlock()
	if running {
		if code := p.redeploy(ctx); code != 0 {
			p.problem("%s ended with exit code %d after SIGTERM, with all servers there", p.name, code)
		}
		_ = p.now.Kill() // after ctx
	}
	p.keeper.Wait()
}

func (p *process) problem(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// output is what it has printed, over all its starts.
func (p *process) output() (string, error) {
	text, err := os.ReadFile(p.log)
	return string(text), err
}
