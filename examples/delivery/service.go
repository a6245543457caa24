package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/examples/delivery/delivery"
	"github.com/outboxkit/outboxkit/examples/delivery/events"
	"github.com/outboxkit/outboxkit/examples/delivery/history"
	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// newServiceCommand is one service in a process of its own, so that the story can
// kill it.
func newServiceCommand() *cobra.Command {
	var b broker
	var database string
	cmd := &cobra.Command{
		Use: "service {delivery|history}", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runService(cmd.Context(), args[0], database, b)
		},
	}
	cmd.Flags().StringVar(&database, "database", "", "URL of the service's database")
	cmd.Flags().StringVar(&b.prefix, "prefix", "", "of topics and groups")
	b.flags(cmd)
	return cmd
}

func runService(ctx context.Context, name, database string, b broker) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("service", name)
	cfg, err := pgxpool.ParseConfig(database)
	if err != nil {
		return err
	}
	cfg.MaxConns = 20 // more than the handlers that an inbox runs at once
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	switch name {
	case "delivery":
		to := b.publisher(log)
		defer func() { err = errors.Join(err, to.Close()) }()
		return delivery.Run(ctx, delivery.Config{
			Pool: pool, From: b.subscriber("delivery", events.Drones, log), To: to, Topic: b.topic, Log: log,
		})
	case "history":
		in, err := history.New(pool, b.subscriber("history", events.Deliveries, log), log)
		if err != nil {
			return err
		}
		return in.Run(ctx)
	}
	return fmt.Errorf("no service %q: delivery or history", name)
}

// service is a service's process.
type service struct {
	name    string
	stage   *stage
	process *proc.Process // nil while none runs
}

func (s *service) log() string { return filepath.Join(s.stage.dir, s.name+".log") }

// start runs this program again, as the service.
func (s *service) start() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s.process, err = proc.Start(proc.Spec{
		Name: s.name, Path: program, LogFile: s.log(),
		Args: append([]string{"service", s.name, "--database", s.stage.postgres.URL(s.name)}, s.stage.broker.args()...),
	})
	return err
}

// kill ends the service as a crash does. Killing one that does not run does
// nothing.
func (s *service) kill() error {
	if s.process == nil {
		return nil
	}
	err := s.process.Kill()
	s.process = nil
	return err
}

// stop lets the service drain.
func (s *service) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	process := s.process
	if err := process.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	s.process = nil
	if code := process.ExitCode(); code != 0 {
		return s.failed(fmt.Sprintf("ended with code %d after SIGTERM", code))
	}
	return nil
}

// check returns an error if the service has ended by itself.
func (s *service) check() error {
	if s.process == nil {
		return nil
	}
	select {
	case <-s.process.Done():
		return s.failed("has ended by itself")
	default:
		return nil
	}
}

func (s *service) failed(how string) error {
	text, _ := os.ReadFile(s.log()) // whatever there is
	return fmt.Errorf("the service %s %s; its log:\n%s", s.name, how, text)
}
