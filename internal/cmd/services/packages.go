package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/outboxkit/outboxkit/internal/services/maven"
	"github.com/outboxkit/outboxkit/internal/services/pgbouncer"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/internal/services/proc"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

// prepare installs, or names, the packages that the machine lacks. Tests need
// all of them for servers of their own, even where the shared ones are given.
func prepare(ctx context.Context, services []*service) error {
	if !slices.ContainsFunc(services, func(s *service) bool { return os.Getenv(s.env) == "" }) {
		return nil // the user brings all servers: do not touch the machine
	}
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || !isDebian() {
		return fmt.Errorf("this machine lacks %[1]s (names of Debian's packages); install them, for example with\n"+
			"  sudo apt-get install --no-install-recommends %[1]s\n"+
			"or give the addresses of running servers (compose.yaml shows how)", strings.Join(missing, " "))
	}
	say("installing %s", strings.Join(missing, " "))
	return install(ctx, missing)
}

func missingPackages() (names []string) {
	_, javaErr := maven.Java()
	_, mvnErr := exec.LookPath("mvn")
	_, dumpErr := postgres.Tool("pg_dump", 15)
	_, gccErr := exec.LookPath("gcc")
	var clockErr error
	if runtime.GOOS == "linux" { // elsewhere tests that need it are skipped
		clockErr = postgres.ClockAvailable()
	}
	for _, p := range []struct {
		name string
		err  error
	}{
		{"default-jre-headless", javaErr}, // 17 on Debian 12, later ones later
		{"gcc", gccErr},                   // for go test -race
		{"libc6-dev", gccErr},
		{"libfaketime", clockErr},
		{"maven", mvnErr},
		{"pgbouncer", pgbouncer.Available()},
		{"postgresql-client", dumpErr},
		{"rabbitmq-server", rabbitmq.Available()},
	} {
		if p.err != nil {
			names = append(names, p.name)
		}
	}
	return names
}

func isDebian() bool {
	release, err := os.ReadFile("/etc/os-release")
	return err == nil && slices.ContainsFunc(strings.Fields(string(release)), func(line string) bool {
		return line == "ID=debian" || line == "ID=ubuntu"
	})
}

// install keeps Debian from starting the servers that it installs: we start our
// own, elsewhere.
func install(ctx context.Context, packages []string) (err error) {
	const policy = "/usr/sbin/policy-rc.d"
	f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	switch {
	case errors.Is(err, os.ErrExist): // the machine has a policy, as containers do
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, os.Remove(policy)) }()
		_, writeErr := f.WriteString("#!/bin/sh\nexit 101\n")
		if err := errors.Join(writeErr, f.Close()); err != nil {
			return err
		}
	}
	env := append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if _, err := proc.Output(ctx, proc.Spec{Name: "apt-get update", Path: "apt-get", Args: []string{"update"}, Env: env}); err != nil {
		return err
	}
	args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	_, err = proc.Output(ctx, proc.Spec{Name: "apt-get install", Path: "apt-get", Args: args, Env: env})
	return err
}
