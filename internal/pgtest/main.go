package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// process is what this test process has started. It is package state because
// testing.M has no place to carry any.
var process struct {
	mu     sync.Mutex
	inMain bool
	atExit []func()
	server *postgres.Server // nil until a test needs it
	admin  string           // superuser URL of the shared server
}

// Main runs the tests and ends the process with their exit code, after stopping
// what the process started; also on SIGINT and SIGTERM.
func Main(m *testing.M) {
	process.mu.Lock()
	process.inMain = true
	process.mu.Unlock()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		fmt.Fprintf(os.Stderr, "pgtest: stopped by signal: %v\n", s)
		exit(1)
	}()
	exit(m.Run())
}

// AtExit adds a function that Main runs after the tests, the last added first.
func AtExit(f func()) {
	process.mu.Lock()
	defer process.mu.Unlock()
	process.atExit = append(process.atExit, f)
}

// exit never gives the lock back: when a signal arrives while the tests end by
// themselves, one of the two cleans up and ends the process.
func exit(code int) {
	process.mu.Lock()
	for _, f := range slices.Backward(process.atExit) {
		f()
	}
	if process.server != nil {
		if err := process.server.Close(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest: stop the shared server:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// shared returns the superuser URL of the server that tests share.
func shared() (string, error) {
	process.mu.Lock()
	defer process.mu.Unlock()
	if !process.inMain {
		return "", errors.New("this package lacks: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	if process.admin != "" {
		return process.admin, nil
	}
	if url := os.Getenv("OUTBOXKIT_POSTGRES_URL"); url != "" {
		process.admin = url
		return url, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	server, err := postgres.Start(ctx, postgres.Config{})
	if err != nil {
		return "", fmt.Errorf("start a Postgres (or set OUTBOXKIT_POSTGRES_URL to a superuser's URL): %w", err)
	}
	process.server, process.admin = server, server.URL("postgres")
	return process.admin, nil
}
