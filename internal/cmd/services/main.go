package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

const usage = `usage:
  services up               start everything, print the addresses, stop on Ctrl-C
  services run -- CMD ARGS  start everything, run CMD with the addresses in its
                            environment, stop everything, exit as CMD did
`

func main() {
	var command []string
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "up":
	case len(args) > 2 && args[0] == "run" && args[1] == "--":
		command = args[2:]
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	dieWithParent()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := serve(ctx, command)
	if err != nil {
		say("%v", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// serve keeps the services running while the command runs, without one until
// ctx ends, and returns the command's exit code.
func serve(ctx context.Context, command []string) (code int, err error) {
	began := time.Now()
	services := all()
	defer func() {
		if stopErr := stopAll(services); stopErr != nil {
			code, err = 1, fmt.Errorf("stop the services: %w", stopErr)
		}
	}()
	if err := prepare(ctx, services); err != nil {
		return 1, err
	}
	if err := startAll(ctx, services); err != nil {
		return 1, err
	}
	say("all ready after %s", time.Since(began).Round(100*time.Millisecond))
	if command == nil {
		for _, s := range services {
			fmt.Printf("export %s='%s'\n", s.env, s.address)
		}
		say("stop with Ctrl-C")
		<-ctx.Done()
		return 0, nil
	}
	return run(ctx, services, command)
}

// run runs the command in its own process group, so that all of it can be
// stopped. A signal to us is passed on.
func run(ctx context.Context, services []*service, command []string) (int, error) {
	env := append(os.Environ(), "OUTBOXKIT_REQUIRE_SERVICES=1")
	for _, s := range services {
		env = append(env, s.env+"="+s.address)
	}
	p, err := proc.Start(proc.Spec{
		Name: command[0], Path: command[0], Args: command[1:], Env: env, Shown: true, DeathSignal: syscall.SIGTERM,
	})
	if err != nil {
		return 1, err
	}
	select {
	case <-p.Done():
		return p.ExitCode(), p.Kill() // what the command left behind
	case <-ctx.Done():
		say("stopping %s", command[0])
		stopCtx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		err := p.StopGroup(stopCtx, syscall.SIGTERM)
		return max(p.ExitCode(), 1), err
	}
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "services: "+format+"\n", args...)
}
