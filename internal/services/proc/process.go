package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Name    string   // for messages, for example "postgres"
	Path    string   // the program
	Args    []string // its arguments, without the program
	Env     []string // nil: the parent's environment
	Dir     string   // working folder; "": the parent's
	LogFile string   // receives stdout and stderr, appended; "": discarded
	Shown   bool     // stdout and stderr are the parent's, not LogFile
	Account *Account // runs as this account; nil: as the parent

	// DeathSignal is what the kernel sends when the parent dies (Linux only).
	// Default: SIGKILL.
	DeathSignal syscall.Signal
}

// Process is a running child. Its methods may be called from any goroutine.
type Process struct {
	name    string
	logFile string
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // set before done is closed
}

// Start starts the program. The caller must end it with Stop or Kill.
func Start(spec Spec) (*Process, error) {
	cmd := command(context.Background(), spec)
	switch {
	case spec.Shown:
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	case spec.LogFile != "":
		log, err := os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("%s: open log: %w", spec.Name, err)
		}
		defer log.Close() // the child holds its own copy
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", spec.Name, spec.Path, err)
	}
	p := &Process{name: spec.Name, logFile: spec.LogFile, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Output runs a program that ends by itself and returns what it printed; the
// error contains that output too.
func Output(ctx context.Context, spec Spec) (string, error) {
	cmd := command(ctx, spec)
	cmd.Cancel = func() error {
		killGroup(cmd)
		return nil
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", spec.Name, err, tail(string(out), 2000))
	}
	return string(out), nil
}

func command(ctx context.Context, spec Spec) *exec.Cmd {
	cmd := exec.CommandContext(ctx, spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	death := spec.DeathSignal
	if death == 0 {
		death = syscall.SIGKILL
	}
	cmd.SysProcAttr = attributes(death)
	if spec.Account != nil {
		cmd.SysProcAttr.Credential = spec.Account.credential()
	}
	return cmd
}

// Pid returns the process id, which is also the id of its process group.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode waits for the end and returns the exit code, 128 and the signal's
// number for a process that a signal ended, as shells do.
func (p *Process) ExitCode() int {
	<-p.done
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop sends sig and waits for the end. A process that is still there when ctx
// ends is killed, which Stop reports. Stopping an ended process is no error.
func (p *Process) Stop(ctx context.Context, sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: send %v: %w", p.name, sig, err)
	}
	return p.await(ctx, sig)
}

// StopGroup is Stop with the signal sent to the whole process group.
func (p *Process) StopGroup(ctx context.Context, sig syscall.Signal) error {
	if err := syscall.Kill(-p.Pid(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%s: send %v to its process group: %w", p.name, sig, err)
	}
	return p.await(ctx, sig)
}

func (p *Process) await(ctx context.Context, sig syscall.Signal) error {
	select {
	case <-p.done:
		return p.Kill() // what it started and left behind
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s: killed, it had not stopped after %v: %w", p.name, sig, ctx.Err()), p.Kill())
	}
}

// Kill kills the process group and waits until none of it is left.
func (p *Process) Kill() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		gone := killGroup(p.cmd)
		select {
		case <-p.done:
			if gone {
				return nil
			}
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: process group %d is still there 10s after SIGKILL", p.name, p.Pid())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// killGroup reports whether there was nothing left to kill.
func killGroup(cmd *exec.Cmd) bool {
	if cmd.Process == nil {
		return true
	}
	return errors.Is(syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL), syscall.ESRCH)
}

// WaitReady polls ready until it returns nil. It fails when ctx ends or the
// process ends first; the error then holds the end of the log.
func (p *Process) WaitReady(ctx context.Context, ready func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ready(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended while starting (%v): %s", p.name, p.err, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; last answer: %w: %s", p.name, ctx.Err(), err, p.logTail())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func (p *Process) logTail() string {
	if p.logFile == "" {
		return "no log"
	}
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return "end of its log:\n" + tail(string(b), 2000)
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}
