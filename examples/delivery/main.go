// Command delivery is a drone delivery in three services, on nothing but Go:
//
//	go run ./examples/delivery
//
// Drones report what they do. The delivery service translates that into what
// happens to deliveries, in one transaction a report: claim, own tables, derived
// event. The history service keeps it. On the way services are killed and reports
// repeated, and at the end every delivery must have exactly its history.
//
// Read events, fleet, delivery and history first; the rest is the stage, the
// story and the verdict. README.md has a picture.
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
	context.AfterFunc(ctx, stop) // a second signal ends the process
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr, nil))
}

var errBroken = errors.New("a promise was broken")

// tamperFunc breaks a promise behind the services' backs, before the verdict.
// Tests use it to see the verdict find it.
type tamperFunc func(context.Context, *stage) error

// execute returns the exit code: 0 if every promise held, 1 if not or if the run
// failed, 130 if it was interrupted.
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
		fmt.Fprintln(stderr, "delivery: interrupted; everything has been stopped and removed")
		return 130
	}
	fmt.Fprintln(stderr, "delivery:", err)
	return 1
}

type options struct {
	deliveries int
	json       bool
	broker     broker
}

func newRootCommand(stdout, stderr io.Writer, tamper tamperFunc) *cobra.Command {
	var opt options
	root := &cobra.Command{
		Use:   "delivery",
		Short: "Drones report, a service translates, another keeps the history",
		Long: `Starts a Postgres, an in-process Kafka (or uses yours: --kafka, --amqp) and two
services, lets drones fly while services are killed and reports are repeated, and
says at the end whether every delivery has exactly its history (exit code 0) or
what is wrong (1).`,
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opt.deliveries < 8 || opt.deliveries > 100_000 {
				return fmt.Errorf("--deliveries %d is outside 8 to 100000", opt.deliveries)
			}
			return run(cmd.Context(), opt, stdout, stderr, tamper)
		},
	}
	root.Flags().IntVar(&opt.deliveries, "deliveries", 60, "how many parcels are delivered")
	root.Flags().BoolVar(&opt.json, "json", false, "print the result as JSON; progress goes to stderr")
	opt.broker.flags(root)
	root.AddCommand(newServiceCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root
}
