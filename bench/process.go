package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// relayProcess is a running child: a relay or, with the same commands, a consumer.
type relayProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startRelay starts a relay in a process of its own.
func startRelay(ctx context.Context, s spec) (*relayProcess, error) {
	return startChild(ctx, childEnv, s)
}

// startChild starts this program again as what the variable says.
func startChild(ctx context.Context, variable string, s any) (*relayProcess, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &relayProcess{cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out))}, nil
}

func (p *relayProcess) ask(command string) (reply, error) {
	var a reply
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return a, err
	}
	if err := p.out.Decode(&a); err != nil {
		return a, fmt.Errorf("child process: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// published waits for n events and returns the seconds since the relay's start.
func (p *relayProcess) published(n int) (float64, error) {
	a, err := p.ask(fmt.Sprint(n))
	return a.Seconds, err
}

// stop lets the relay drain. It may be called again.
func (p *relayProcess) stop() error {
	_ = p.in.Close()
	if p.cmd.ProcessState != nil {
		return nil
	}
	kill := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	return p.cmd.Wait()
}

func (p *relayProcess) pid() int { return p.cmd.Process.Pid }
