// Command relay publishes the events of an outbox, and is the operator's tool
// for it. Run "relay --help".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default is back: a second one ends the process.
	context.AfterFunc(ctx, stop)
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", explained(err))
		os.Exit(exitCode(err))
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
  relay config check --config relay.yaml         find what is wrong in the configuration
  relay run --config relay.yaml                  publish until SIGTERM

Exit codes: 0 done; 1 it failed, or the answer is no; 2 wrong flags, arguments or
configuration, and nothing was done; 3 relay doctor found failures.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newRun(), newStatus(), newExplain(), newDoctor(), newPipeline(), newDLQ(), newReplay(), newSchema(), newMigrate(), newRebase(), newHealth(), newConfig(), newVersion())
	prepare(root)
	return root
}
