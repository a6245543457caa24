package dedup_test

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/dedup"
)

// A webhook that its sender may repeat is booked once.
func ExamplePostgres_Claim() {
	receive := func(ctx context.Context, pool *pgxpool.Pool, store *dedup.Postgres, deliveryID string, amount int) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			results, err := store.Claim(ctx, tx, dedup.Key{Source: "payments webhook", ID: deliveryID})
			if err != nil || results[0] == dedup.Duplicate {
				return err // a duplicate is a success without effect
			}
			_, err = tx.Exec(ctx, `INSERT INTO payment (amount) VALUES ($1)`, amount)
			return err
		})
	}
	_ = receive
}
