package main

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/examples/demo/orders"
)

// newWriteCommand places one order in a demo that was started with --keep.
func newWriteCommand(stdout io.Writer) *cobra.Command {
	var database, user string
	var items []string
	cmd := &cobra.Command{
		Use:   "write --database URL",
		Short: "Place one order in a demo that --keep has left running",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := placeOne(cmd.Context(), database, user, items)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(stdout, "order %d of %s is committed, and its event with it\n", id, user)
			return err
		},
	}
	cmd.Flags().StringVar(&database, "database", "", "URL of the orders database, as --keep prints it")
	cmd.Flags().StringVar(&user, "user", "you", "who orders")
	cmd.Flags().StringSliceVar(&items, "item", []string{"tea"}, "what is ordered")
	_ = cmd.MarkFlagRequired("database") // it exists
	return cmd
}

func placeOne(ctx context.Context, database, user string, items []string) (int64, error) {
	pool, err := pgxpool.New(ctx, database)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	shop, err := orders.New(ctx, pool)
	if err != nil {
		return 0, err
	}
	return shop.Place(ctx, user, items, func() error { return nil })
}
