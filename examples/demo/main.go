// Command demo shows the whole way of an event, on nothing but Go: a shop whose
// Orders service writes events into its own Postgres, a relay that publishes them
// to Kafka, and two consumers, Inventory and Notification. On the way it breaks
// what breaks in production, and at the end it says which promises held.
//
//	go run ./examples/demo
//
// The services are in orders, inventory and notification, and what they share in
// events: read these first. The rest is the stage, the story and the verdict.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default is back: a second one ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr, nil))
}

var errBroken = errors.New("a promise was broken")

// execute returns the exit code: 0 if every promise held, 1 if not or if the demo
// failed, 130 if it was interrupted. tamper is for tests, see scenario.tamper.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer, tamper tamperFunc) int {
	root := newRootCommand(stdout, stderr, tamper)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errBroken): // the report has said it
		return 1
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "demo: interrupted; everything has been stopped and removed")
		return 130
	}
	fmt.Fprintln(stderr, "demo:", err)
	return 1
}

func newRootCommand(stdout, stderr io.Writer, tamper tamperFunc) *cobra.Command {
	var opt options
	root := &cobra.Command{
		Use:   "demo",
		Short: "Watch events cross from one Postgres through Kafka into two others",
		Long: `Starts a Postgres, an in-process Kafka, a relay and three services, places orders
while things go wrong, and says at the end whether every promise held (exit code
0) or which one was broken (1).`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opt.validate(); err != nil {
				return err
			}
			return run(cmd.Context(), opt, stdout, stderr, tamper)
		},
	}
	root.Flags().IntVar(&opt.orders, "orders", 2000, "how many orders are placed, rolled-back ones included")
	root.Flags().BoolVar(&opt.keep, "keep", false, "leave everything running afterwards, until Ctrl-C")
	root.Flags().BoolVar(&opt.json, "json", false, "print the result as JSON; progress goes to stderr")
	root.AddCommand(newRelayCommand(), newWriteCommand(stdout))
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root
}

type options struct {
	orders int
	keep   bool
	json   bool
}

func (o options) validate() error {
	if o.orders < 20 || o.orders > 1_000_000 {
		return fmt.Errorf("--orders %d is outside 20 to 1000000", o.orders)
	}
	return nil
}
