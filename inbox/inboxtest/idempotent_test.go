package inboxtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/outbox"
)

func stress() inboxtest.Stress {
	return inboxtest.Stress{Events: orders(), Database: database, Snapshot: state}
}

func TestGoodHandlersPass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]inboxtest.Consumer{
		"pgx": consumer(func(*pgxpool.Pool) handle { return reserve }),
		"sql": consumerSQL(func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
			if _, err := tx.ExecContext(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, addLine, e.Data.ID, e.Data.Qty)
			return err
		}),
		"derived events": consumer(func(pool *pgxpool.Pool) handle {
			ob, err := outbox.New(context.Background(), pool, outbox.Config{Source: "/inventory", Types: []event.Any{reservedV1}})
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if err != nil {
					return err
				}
				return ob.Write(ctx, tx, reservedV1.New(reserved{OrderID: e.Data.ID}))
			}
		}),
		"batch and copy": consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				b := &pgx.Batch{}
				b.Queue(takeStock, e.Data.SKU, e.Data.Qty)
				b.Queue(addLine, e.Data.ID, e.Data.Qty)
				if err := tx.SendBatch(ctx, b).Close(); err != nil {
					return err
				}
				_, err := tx.CopyFrom(ctx, pgx.Identifier{"line"}, []string{"order_id"}, pgx.CopyFromRows([][]any{{e.Data.ID}}))
				return err
			}
		}),
		"its own statements without context": consumer(func(*pgxpool.Pool) handle {
			return func(_ context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				return reserve(context.Background(), tx, e)
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.RequireIdempotent(t, stress())
			s := stress()
			for n := range s.Events {
				s.Events[n].Key = ""
			}
			c.RequireIdempotent(t, s)
		})
	}
}

// bad are handlers that work when every event comes once.
var bad = map[string]struct {
	consumer inboxtest.Consumer
	want     []string // in the report
	not      []string
}{
	"changes outside its transaction": {
		consumer: consumer(func(pool *pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, err := pool.Exec(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, addLine, e.Data.ID, e.Data.Qty)
				return err
			}
		}),
		want: []string{"--- crashes:", `- `, `{"sku":"tea","qty":`, "outside their transaction", takeStock},
		not:  []string{"--- order:"},
	},
	"a transaction of its own": {
		consumer: consumer(func(pool *pgxpool.Pool) handle {
			return func(ctx context.Context, _ pgx.Tx, e inbox.Event[order]) error {
				return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return reserve(ctx, tx, e) })
			}
		}),
		want: []string{"--- crashes:", "+   {\"order_id\":\"o-0\"", "outside their transaction", "begin"},
	},
	"remembers what was rolled back": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			var seen sync.Map
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, again := seen.LoadOrStore(e.ID, true); again {
					return nil
				}
				return reserve(ctx, tx, e)
			}
		}),
		want: []string{"--- crashes:", "-   {\"order_id\":\"o-0\""},
		not:  []string{"--- order:"},
	},
	"depends on the order across keys": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, err := tx.Exec(ctx, `LOCK line`); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `INSERT INTO line (order_id, qty, no) SELECT $1, $2, count(*) FROM line`, e.Data.ID, e.Data.Qty)
				return err
			}
		}),
		want: []string{"--- order:", `"no":`},
	},
	"overwrites what another key has written": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				var qty int
				if err := tx.QueryRow(ctx, `SELECT qty FROM stock WHERE sku = $1`, e.Data.SKU).Scan(&qty); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `UPDATE stock SET qty = $2 WHERE sku = $1`, e.Data.SKU, qty-e.Data.Qty)
				return err
			}
		}),
		want: []string{"--- duplicates:", `{"sku":"tea","qty":`},
		not:  []string{"--- order:", "outside"},
	},
	"another name for each instance": {
		consumer: inboxtest.Consumer{New: func() func(*pgxpool.Pool, brokers.Subscriber) (*inbox.Inbox, error) {
			var hosts atomic.Int32
			return func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
				cfg := config(from)
				cfg.Consumer = fmt.Sprint("inventory-", hosts.Add(1))
				in, err := inbox.New(pool, cfg)
				inbox.On(in, placed, reserve)
				return in, err
			}
		}()},
		want: []string{"--- duplicates:", "--- everything:"},
		not:  []string{"--- order:", "--- crashes:"},
	},
	"commits by statement": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if err := reserve(ctx, tx, e); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `COMMIT`)
				return err
			}
		}),
		want: []string{"each event once, in order", "15 transactions were gone when the inbox came to commit them"},
	},
	"commits a pgx.Tx": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if err := reserve(ctx, tx, e); err != nil {
					return err
				}
				return tx.Commit(ctx)
			}
		}),
		want: []string{"each event once, in order", "these were not handled", `shop.order.placed of key "o-0"`, "is dead: attempts after 3 attempts"},
	},
	"commits a sql.Tx": {
		consumer: consumerSQL(func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
			if _, err := tx.ExecContext(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
				return err
			}
			return tx.Commit()
		}),
		want: []string{"each event once, in order", "15 events counted as handled before: their handler has committed the transaction itself"},
	},
}

func TestBadHandlersAreCaught(t *testing.T) {
	t.Parallel()
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := failure(t, func(t testing.TB) { c.consumer.RequireIdempotent(t, stress()) })
			t.Log(text)
			for _, want := range c.want {
				require.Contains(t, text, want)
			}
			for _, not := range c.not {
				require.NotContains(t, text, not)
			}
		})
	}
}
