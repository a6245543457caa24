package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

const (
	writers = 8
	users   = 200
	// ordersPerSecond paces the writers, so that they still write when the last
	// process is killed.
	ordersPerSecond = 1000
)

var errRollback = errors.New("rolled back on purpose")

// writeOrders commits total orders from concurrent writers, and rolls about a
// tenth as many back after they wrote their event. It returns the number of
// rollbacks.
func writeOrders(ctx context.Context, pool *pgxpool.Pool, topic string, total int, seed uint64) (int64, error) {
	orderPlacedV1 := orderPlacedType(topic)
	ob, err := outbox.New(ctx, pool, outbox.Config{Source: "/shop/orders", Types: []event.Any{orderPlacedV1}})
	if err != nil {
		return 0, err
	}
	pace := rate.NewLimiter(ordersPerSecond, writers)
	var committed, rolledBack atomic.Int64
	var g errgroup.Group
	for w := range writers {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		g.Go(func() error {
			for committed.Add(1) <= int64(total) {
				for {
					if err := pace.Wait(ctx); err != nil {
						return err
					}
					err := placeOrder(ctx, pool, ob, orderPlacedV1, rng)
					if errors.Is(err, errRollback) {
						rolledBack.Add(1)
						continue
					}
					if err != nil {
						return err
					}
					break
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return rolledBack.Load(), err
}

func placeOrder(ctx context.Context, pool *pgxpool.Pool, ob *outbox.Outbox, typ event.Type[orderPlaced], rng *rand.Rand) error {
	user := fmt.Sprint("user-", rng.IntN(users))
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		o := orderPlaced{OrderID: fmt.Sprintf("%016x", rng.Uint64()), UserID: user, Items: []string{"apple", "pear"}}
		if err := tx.QueryRow(ctx, `UPDATE users SET orders = orders + 1 WHERE id = $1 RETURNING orders`, user).Scan(&o.N); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO orders (user_id, n) VALUES ($1, $2)`, user, o.N); err != nil {
			return err
		}
		if err := ob.Write(ctx, tx, typ.New(o)); err != nil {
			return err
		}
		if rng.IntN(10) == 0 {
			return errRollback
		}
		return nil
	})
}
