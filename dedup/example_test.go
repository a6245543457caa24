package dedup_test

import (
	"context"
	"fmt"

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

// A command that is sent again gets the first answer. In Postgres, where this is
// part of the command's transaction, the store is store.In(tx).
func ExampleStore() {
	store, err := dedup.NewMemory(dedup.MemoryConfig{})
	if err != nil {
		panic(err)
	}
	orders := 0
	for range 2 {
		answer, err := store.Once(context.Background(), dedup.Key{Source: "POST /orders ann", ID: "k1"}, func(context.Context) ([]byte, error) {
			orders++
			return fmt.Appendf(nil, "order %d", orders), nil
		})
		fmt.Println(string(answer.Response), answer.Duplicate, err)
	}
	// Output:
	// order 1 false <nil>
	// order 1 true <nil>
}
