//go:build faults

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

// load says what the shop's writers commit.
type load struct {
	perSecond int
	kind      func() string // "", "poison" or "slow"; nil: always ""
}

// everyNth makes every n-th order one of a kind.
func everyNth(kind string, n int64) func() string {
	var count atomic.Int64
	return func() string {
		if count.Add(1)%n == 0 {
			return kind
		}
		return ""
	}
}

// write has writers commit orders until the returned function is called; about
// one transaction in ten rolls back after it has written its event.
func (w *faultWorld) write(l load) (stop func()) {
	w.Helper()
	pool, err := pgxpool.New(context.Background(), as(w.T, w.shopURL, "outbox_writer"))
	require.NoError(w, err)
	w.Cleanup(pool.Close)
	placed := orderPlacedType(w.broker.topic)
	ob, err := outbox.New(w.Context(), pool, outbox.Config{Source: "/shop/orders", Types: []event.Any{placed}})
	require.NoError(w, err)
	ctx, cancel := context.WithCancel(context.Background())
	pace := rate.NewLimiter(rate.Limit(l.perSecond), 4)
	seed := seedOf(w.T)
	var g errgroup.Group
	for i := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, i))
		g.Go(func() error {
			for pace.Wait(ctx) == nil {
				kind := ""
				if l.kind != nil {
					kind = l.kind()
				}
				if err := w.order(pool, ob, placed, kind, rng); err != nil && !errors.Is(err, errRollback) {
					return err
				}
			}
			return nil
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := g.Wait(); err != nil {
			w.Error(err)
		}
	})
	w.Cleanup(stop)
	return stop
}

// order commits one order, or rolls it back.
func (w *faultWorld) order(pool *pgxpool.Pool, ob *outbox.Outbox, placed event.Type[orderPlaced], kind string, rng *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	id := uuid.Must(uuid.NewV7()).String()
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		o := orderPlaced{OrderID: id, UserID: fmt.Sprint("user-", rng.IntN(users)), Items: []string{kind}}
		if err := tx.QueryRow(ctx, `UPDATE users SET orders = orders + 1 WHERE id = $1 RETURNING orders`, o.UserID).Scan(&o.N); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO orders (user_id, n, event_id, kind) VALUES ($1, $2, $3, $4)`, o.UserID, o.N, id, kind); err != nil {
			return err
		}
		draft := placed.New(o)
		draft.ID = id
		if err := ob.Write(ctx, tx, draft); err != nil {
			return err
		}
		if rng.IntN(10) == 0 {
			return errRollback
		}
		return nil
	})
}
