package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/internal/services/proc"
	"github.com/outboxkit/outboxkit/relay"
)

// newRelayCommand is the relay in a process of its own, so that the demo can kill
// it. A real deployment runs "relay run", or these lines inside the service.
func newRelayCommand() *cobra.Command {
	var database string
	var kafkaBrokers []string
	cmd := &cobra.Command{
		Use: "relay", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRelay(cmd.Context(), database, kafkaBrokers)
		},
	}
	cmd.Flags().StringVar(&database, "database", "", "URL of the database with the outbox")
	cmd.Flags().StringSliceVar(&kafkaBrokers, "kafka", nil, "bootstrap addresses")
	return cmd
}

func runRelay(ctx context.Context, database string, kafkaBrokers []string) error {
	pool, err := pgxpool.New(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	to := kafka.NewPublisher(kafka.Config{Brokers: kafkaBrokers})
	defer to.Close()
	r, err := relay.New(pool, relay.Config{
		Pipelines: []relay.Pipeline{{Name: "kafka", To: to, Wire: events.Wire()}},
		Lease:     2 * time.Second, // how long the next relay waits for a killed one
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// relayProcess is a running relay.
type relayProcess struct {
	process *proc.Process
	log     string // file
}

// startRelay runs this program again, as a relay.
func startRelay(s *stage) (*relayProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := proc.Start(proc.Spec{
		Name: "relay", Path: program, LogFile: s.relayLog(),
		Args: []string{"relay", "--database", s.postgres.URL("orders"), "--kafka", strings.Join(s.kafka.ListenAddrs(), ",")},
	})
	if err != nil {
		return nil, err
	}
	return &relayProcess{p, s.relayLog()}, nil
}

// kill ends the relay as a crash does. Killing a nil or ended relay does nothing.
func (r *relayProcess) kill() error {
	if r == nil {
		return nil
	}
	return r.process.Kill()
}

// stop lets the relay drain.
func (r *relayProcess) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return r.process.Stop(ctx, syscall.SIGTERM)
}

// check returns an error if the relay has ended by itself.
func (r *relayProcess) check() error {
	if r == nil {
		return nil
	}
	select {
	case <-r.process.Done():
		text, _ := os.ReadFile(r.log) // whatever there is
		return fmt.Errorf("the relay has ended by itself; its log:\n%s", text)
	default:
		return nil
	}
}
