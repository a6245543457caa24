package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func healthy(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func quiet(t *testing.T, name string, run func(context.Context) error) *service {
	return &service{name: name, run: run, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func TestOneDatabaseEndsWithItsError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	require.ErrorIs(t, serve(t.Context(), []*service{quiet(t, "", func(context.Context) error { return broken })}), broken)
}

// A bad database is tried again while the other goes on; the end names it.
func TestABadDatabaseStopsNoOther(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	tries := make(chan struct{}, 100)
	bad := quiet(t, "bad", func(context.Context) error {
		tries <- struct{}{}
		return broken
	})
	stopped := make(chan struct{})
	good := quiet(t, "good", func(ctx context.Context) error {
		defer close(stopped)
		return healthy(ctx)
	})
	done := make(chan error, 1)
	go func() { done <- serve(ctx, []*service{bad, good}) }()
	<-tries
	<-tries
	select {
	case <-stopped:
		t.Fatal("the good one was stopped")
	default:
	}
	cancel()
	err := <-done
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "1 of 2 databases were not served: database bad: broken")
}

// What was mended in the meantime is no error at the end.
func TestAMendedDatabaseIsNoError(t *testing.T) {
	t.Parallel()
	b := &board{failed: map[*service]error{}, all: 2, stop: func() {}}
	s := quiet(t, "s", healthy)
	b.fails(s, errors.New("broken"))
	require.Error(t, b.err())
	b.works(s)
	require.NoError(t, b.err())
}

// When nothing is left that works, the process ends.
func TestAllBadDatabasesEndTheProcess(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	bad := func(context.Context) error { return broken }
	began := time.Now()
	err := serve(t.Context(), []*service{quiet(t, "a", bad), quiet(t, "b", bad)})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "2 of 2 databases were not served")
	require.Less(t, time.Since(began), 10*time.Second)
}
