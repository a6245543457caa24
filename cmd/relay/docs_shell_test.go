package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// docJob is a command in the background.
type docJob struct {
	cmd *exec.Cmd
	out output
	end chan error // its end, once
}

func (w *documentWorld) shell(text string) (out string, code int, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var all output
	cmd := w.exec(ctx, w.here(text), &all)
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.Exited() {
		err = nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("%w\n%s", err, all.String())
	}
	return all.String(), cmd.ProcessState.ExitCode(), nil
}

// exec is a shell in the world's folder. Its children die with the test.
func (w *documentWorld) exec(ctx context.Context, text string, out *output) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", text)
	cmd.Dir = w.dir
	// Not what says how tests are run, which relay would warn about. A machine has one
	// default admin address: daemons of documents that run at once take free ones.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envPrefix) })
	cmd.Env = append(env, envMain+"=1", envPrefix+"ADMIN_LISTEN=127.0.0.1:0", "PATH="+filepath.Join(w.dir, "bin")+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 5 * time.Second // for a child of the shell that outlives it
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start runs a command in the background; exec, so that it gets the signals.
func (w *documentWorld) start(c docCommand) error {
	j := &docJob{end: make(chan error, 1)}
	j.cmd = w.exec(w.t.Context(), "exec "+w.here(c.text), &j.out)
	if err := j.cmd.Start(); err != nil {
		return err
	}
	go func(cmd *exec.Cmd) { j.end <- cmd.Wait() }(j.cmd)
	w.jobs = append(w.jobs, j)
	return nil
}

// stop ends a job with SIGTERM, once, and wants it to end with 0.
func (w *documentWorld) stop(number int) error {
	if number < 1 || number > len(w.jobs) {
		return fmt.Errorf("kill %%%d: there is no such job", number)
	}
	j := w.jobs[number-1]
	if j.cmd == nil {
		return nil // by the document
	}
	name := j.cmd.Args[len(j.cmd.Args)-1]
	_ = j.cmd.Process.Signal(syscall.SIGTERM) // may have ended: told below
	j.cmd = nil
	select {
	case err := <-j.end:
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, j.out.String())
		}
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("%s has not ended a minute after SIGTERM\n%s", name, j.out.String())
	}
}

// told is what the jobs have printed.
func (w *documentWorld) told() string {
	var b strings.Builder
	for i, j := range w.jobs {
		fmt.Fprintf(&b, "\njob %%%d:\n%s", i+1, j.out.String())
	}
	return b.String()
}
