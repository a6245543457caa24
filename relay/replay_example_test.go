package relay_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/relay"
)

// Two hours of one type again, a hundred a second, after a consumer's bug was mended.
func ExampleReplay() {
	replay := func(ctx context.Context, pool *pgxpool.Pool, kafka relay.Pipeline) error {
		got, err := relay.Replay(ctx, pool, relay.ReplayConfig{
			Pipeline: kafka, // as in relay.Config
			Where:    relay.ReplayFilter{From: time.Now().Add(-2 * time.Hour), Types: []string{"shop.order.placed"}},
			Rate:     100,
			Reason:   "stock was not booked, ticket 4711",
			Progress: func(p relay.ReplayProgress) { fmt.Println(p.Published, p.Remaining) },
		})
		var gone *relay.TruncatedError
		switch {
		case errors.As(err, &gone):
			fmt.Println("too late for", gone.Parts)
		case err != nil:
			fmt.Println("go on with ReplayConfig.Resume:", got.ID)
		}
		return err
	}
	_ = replay
}
