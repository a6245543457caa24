// Command relay publishes the events of an outbox, and is the operator's tool
// for it. Run "relay --help".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default is back: a second one ends the process.
	context.AfterFunc(ctx, stop)
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "relay",
		Short: "Publish the events of a transactional outbox to Kafka or RabbitMQ",
		Long: `relay reads the outbox tables of a service's own Postgres and publishes their
events, in order per key, to Kafka or RabbitMQ.

Start with:
  relay migrate up --database-url postgres://…   create the outbox tables
  relay run --config relay.yaml                  publish until SIGTERM`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newRun(), newStatus(), newPipeline(), newDLQ(), newReplay(), newSchema(), newMigrate(), newRebase(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version + " " + info.GoVersion
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "relay", version)
			return err
		},
	}
}
