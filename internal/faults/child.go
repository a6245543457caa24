package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// envChild makes a process of the faults program one of its children.
const envChild = "OUTBOXKIT_FAULTS_CHILD"

// childSpec is what a child is told: one of these. Children of the previous release
// read it too ([Config.Beside]): fields are added, not renamed.
type childSpec struct {
	Service  *serviceSpec  `json:",omitempty"`
	Consumer *consumerSpec `json:",omitempty"`
}

// Child runs the service or consumer that this process is meant to be and tells
// whether it is one.
func Child() (is bool, err error) {
	text := os.Getenv(envChild)
	if text == "" {
		return false, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})))
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return true, fmt.Errorf("%s: %w", envChild, err)
	}
	slog.Info("started", "pid", os.Getpid())
	return true, spec.keep(ctx)
}

// keep runs it. What its servers' absence at the start ends is tried again, as a
// service's own start would be.
func (s childSpec) keep(ctx context.Context) error {
	for {
		var err error
		if s.Service != nil {
			err = runService(ctx, *s.Service)
		} else {
			err = runConsumer(ctx, *s.Consumer)
		}
		if ctx.Err() != nil || err == nil {
			return err
		}
		slog.Warn("gave up, starting again", "error", err)
		pause(ctx, 500*time.Millisecond)
	}
}

func (s childSpec) env() (string, error) {
	text, err := json.Marshal(s)
	return envChild + "=" + string(text), err
}
