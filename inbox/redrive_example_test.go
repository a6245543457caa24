package inbox_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/inbox"
)

// The cause is mended: the dead letters of one type are handled again by the running
// inboxes of the consumer, at most fifty a second, each before what waits behind it.
func ExampleRedrive() {
	redrive := func(ctx context.Context, pool *pgxpool.Pool) error {
		filter := inbox.DeadFilter{Consumer: "inventory", Type: "shop.order.placed", Class: "attempts"}
		var action int64
		n, err := inbox.Redrive(ctx, pool, "", filter, inbox.DeadAction{
			By: "ann", Reason: "the stock database is back", Rate: 50,
			Progress: func(p inbox.DeadProgress) { action = p.Action },
		})
		if err != nil || n == 0 {
			return err
		}
		outcome, err := inbox.RedriveOutcome(ctx, pool, "", action) // asked again until nothing is retrying
		fmt.Println(outcome.Redriven, outcome.Retrying, outcome.Dead)
		return err
	}
	_ = redrive
}

// Every dead letter of a key, one at a time, with payload and headers.
func ExampleExportDeadLetters() {
	export := func(ctx context.Context, pool *pgxpool.Pool) error {
		return inbox.ExportDeadLetters(ctx, pool, "", inbox.DeadFilter{Key: "o-1"}, func(d inbox.DeadLetter) error {
			_, err := fmt.Println(d.N, d.State, d.Class, d.Reason, len(d.Payload))
			return err
		})
	}
	_ = export
}
