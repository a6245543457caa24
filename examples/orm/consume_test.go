package orm_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/orm"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/migrate"
)

// TestHandledOnceWithEveryLibrary: what a library does in a handler commits with
// the claim, once, and an attempt that fails after it leaves nothing.
func TestHandledOnceWithEveryLibrary(t *testing.T) {
	for name, register := range handlers(t) {
		t.Run(name, func(t *testing.T) {
			pool := consumerDatabase(t)
			broker := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 1})
			var failed atomic.Bool // lanes share the middleware
			in, err := inbox.New(pool, inbox.Config{
				Consumer: "records", From: broker.Subscriber("records", "orders"), Wire: events.Wire(),
				RetryBase: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
				Middleware: []inbox.Middleware{func(next inbox.Handler) inbox.Handler {
					return func(ctx context.Context, a *inbox.Attempt) error {
						err := next(ctx, a)
						if err == nil && failed.CompareAndSwap(false, true) {
							err = errors.New("fails after the library's work")
						}
						return err
					}
				}},
			})
			require.NoError(t, err)
			register(t, in, pool)
			publish(t, broker, "1", "2")
			publish(t, broker, "1", "2")
			publish(t, broker, "3")

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- in.Run(ctx) }()
			require.Eventually(t, func() bool { return broker.Unacked("records", "orders") == 0 }, 20*time.Second, 5*time.Millisecond)
			cancel()
			require.NoError(t, <-done)

			require.Equal(t, []string{"1", "2", "3"}, column[string](t, pool, "SELECT id FROM orders ORDER BY id"))
			require.Equal(t, inbox.Stats{Handled: 3, Duplicates: 2, Failures: 1}, in.Stats())
		})
	}
}

type register func(t *testing.T, in *inbox.Inbox, pool *pgxpool.Pool)

func handlers(t *testing.T) map[string]register {
	t.Helper()
	withGORM := func(prepare bool) register {
		return func(t *testing.T, in *inbox.Inbox, pool *pgxpool.Pool) {
			db, err := gorm.Open(postgres.New(postgres.Config{Conn: stdlib.OpenDBFromPool(pool)}),
				&gorm.Config{PrepareStmt: prepare, Logger: logger.Discard})
			require.NoError(t, err)
			inbox.OnSQL(in, events.OrderPlacedV1, orm.RecordWithGORM(db))
		}
	}
	return map[string]register{
		"GORM":                          withGORM(false),
		"GORM with prepared statements": withGORM(true),
		"sqlc over pgx": func(_ *testing.T, in *inbox.Inbox, _ *pgxpool.Pool) {
			inbox.On(in, events.OrderPlacedV1, orm.RecordWithSQLCPgx)
		},
		"sqlc over database/sql": func(_ *testing.T, in *inbox.Inbox, _ *pgxpool.Pool) {
			inbox.OnSQL(in, events.OrderPlacedV1, orm.RecordWithSQLC)
		},
		"ent": func(_ *testing.T, in *inbox.Inbox, _ *pgxpool.Pool) {
			inbox.OnSQL(in, events.OrderPlacedV1, orm.RecordWithEnt)
		},
		"bun": func(_ *testing.T, in *inbox.Inbox, pool *pgxpool.Pool) {
			inbox.OnSQL(in, events.OrderPlacedV1, orm.RecordWithBun(bun.NewDB(stdlib.OpenDBFromPool(pool), pgdialect.New())))
		},
	}
}

func publish(t *testing.T, broker *brokertest.Memory, orders ...string) {
	t.Helper()
	codec := events.OrderPlacedV1.Codec
	for _, order := range orders {
		data, err := codec.Encode(events.OrderPlaced{OrderID: order, UserID: "ada", Items: []string{"tea"}})
		require.NoError(t, err)
		payload, err := events.Wire().Seal(t.Context(), "orders", codec.Schema(), data)
		require.NoError(t, err)
		for _, err := range broker.Publisher().Publish(t.Context(), []brokers.Message{{
			Topic: "orders", Key: order, ID: "order " + order, Source: "/shop/orders", Type: events.OrderPlacedV1.Name, Payload: payload,
		}}) {
			require.NoError(t, err)
		}
	}
}

// consumerDatabase returns one that holds the inbox, the shop's tables and a user.
func consumerDatabase(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := database(t)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
		return migrate.Inbox("").Up(t.Context(), c.Conn())
	}))
	return pool
}
