package orm_test

import (
	"context"
	_ "embed"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/orm"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

//go:embed schema.sql
var schema string

type place func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error

// TestRowAndEventShareTheirFate runs every example: the order and its event
// commit together, and neither stays when either fails.
func TestRowAndEventShareTheirFate(t *testing.T) {
	pool := database(t)
	ob, err := outbox.New(t.Context(), pool, outbox.Config{
		Source: "/shop/orders", Types: []event.Any{events.OrderPlacedV1},
	})
	require.NoError(t, err)

	for name, place := range examples(t, pool) {
		t.Run(name, func(t *testing.T) {
			_, err := pool.Exec(t.Context(), "TRUNCATE orders, outbox.event")
			require.NoError(t, err)
			ctx := t.Context()

			require.NoError(t, place(ctx, ob, events.OrderPlaced{OrderID: "kept", UserID: "ada", Items: []string{"tea"}}))

			err = place(ctx, ob, events.OrderPlaced{OrderID: "fails at commit", UserID: "nobody", Items: []string{"tea"}})
			var pg *pgconn.PgError
			require.True(t, errors.As(err, &pg), "%v", err)
			require.Equal(t, "23503", pg.Code) // foreign_key_violation

			err = place(ctx, ob, events.OrderPlaced{OrderID: "fails its schema", UserID: "ada", Items: []string{"\xff"}})
			var bad *event.FieldError
			require.True(t, errors.As(err, &bad), "%v", err)

			require.Equal(t, []string{"kept"}, column[string](t, pool, "SELECT id FROM orders"))
			payloads := column[[]byte](t, pool, "SELECT payload FROM outbox.event")
			require.Len(t, payloads, 1)
			var e events.OrderPlaced
			require.NoError(t, events.OrderPlacedV1.Codec.Decode(payloads[0], event.Schema{}, &e))
			require.Equal(t, "kept", e.OrderID)
		})
	}
}

func examples(t *testing.T, pool *pgxpool.Pool) map[string]place {
	t.Helper()
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	bunDB := bun.NewDB(db, pgdialect.New())
	openGORM := func(prepare bool) *gorm.DB {
		g, err := gorm.Open(postgres.New(postgres.Config{Conn: db}),
			&gorm.Config{PrepareStmt: prepare, Logger: logger.Discard})
		require.NoError(t, err)
		return g
	}
	plain, prepared := openGORM(false), openGORM(true)

	return map[string]place{
		"GORM": func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error {
			return orm.PlaceWithGORM(ctx, plain, ob, e)
		},
		"GORM with prepared statements": func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error {
			return orm.PlaceWithGORM(ctx, prepared, ob, e)
		},
		"sqlc over pgx": func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error {
			return orm.PlaceWithSQLCPgx(ctx, pool, ob, e)
		},
		"sqlc over database/sql": func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error {
			return orm.PlaceWithSQLC(ctx, db, ob, e)
		},
		"ent": func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error {
			return orm.PlaceWithEnt(ctx, db, ob, e)
		},
		"bun": func(ctx context.Context, ob *outbox.Outbox, e events.OrderPlaced) error {
			return orm.PlaceWithBun(ctx, bunDB, ob, e)
		},
	}
}

// database returns one that holds the outbox, the shop's tables and a user.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
		return migrate.Outbox("").Up(t.Context(), c.Conn())
	}))
	_, err := pool.Exec(t.Context(), schema+"; INSERT INTO users VALUES ('ada')")
	require.NoError(t, err)
	return pool
}

func column[T any](t *testing.T, pool *pgxpool.Pool, query string) []T {
	t.Helper()
	rows, err := pool.Query(t.Context(), query)
	require.NoError(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err)
	return values
}
