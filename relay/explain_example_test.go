package relay_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/relay"
)

// A customer waits for an e-mail: where is the event that should have caused it?
func ExampleExplain() {
	explain := func(ctx context.Context, pool *pgxpool.Pool, id string) error {
		e, err := relay.Explain(ctx, pool, relay.ExplainConfig{ID: id})
		if err != nil {
			return err
		}
		for _, event := range e.Events {
			for _, p := range event.Pipelines {
				fmt.Println(p.Pipeline, p.State, p.Destination)
				for _, r := range p.Reasons {
					fmt.Println(" ", r.Text, r.Cure)
				}
			}
		}
		if e.Missing != nil {
			fmt.Println(e.Missing.Reasons[0].Text)
		}
		return nil
	}
	_ = explain
}
