package orm

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/orm/sqlcpgx"
	"github.com/outboxkit/outboxkit/examples/orm/sqlcstd"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
)

// PlaceWithSQLCPgx is for code that sqlc generates with sql_package: pgx/v5.
func PlaceWithSQLCPgx(ctx context.Context, pool *pgxpool.Pool, ob *outbox.Outbox, e events.OrderPlaced) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		err := sqlcpgx.New(tx).CreateOrder(ctx, sqlcpgx.CreateOrderParams{ID: e.OrderID, UserID: e.UserID})
		if err != nil {
			return err
		}
		return ob.WithKeyLock().Write(ctx, tx, events.OrderPlacedV1.New(e))
	})
}

// PlaceWithSQLC is for code that sqlc generates with sql_package: database/sql.
func PlaceWithSQLC(ctx context.Context, db *sql.DB, ob *outbox.Outbox, e events.OrderPlaced) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	err = sqlcstd.New(tx).CreateOrder(ctx, sqlcstd.CreateOrderParams{ID: e.OrderID, UserID: e.UserID})
	if err != nil {
		return err
	}
	if err := ob.WithKeyLock().WriteSQL(ctx, tx, events.OrderPlacedV1.New(e)); err != nil {
		return err
	}
	return tx.Commit()
}

// RecordWithSQLCPgx is a handler that records an order, for inbox.On.
func RecordWithSQLCPgx(ctx context.Context, tx pgx.Tx, e inbox.Event[events.OrderPlaced]) error {
	return sqlcpgx.New(tx).CreateOrder(ctx, sqlcpgx.CreateOrderParams{ID: e.Data.OrderID, UserID: e.Data.UserID})
}

// RecordWithSQLC is a handler that records an order, for inbox.OnSQL.
func RecordWithSQLC(ctx context.Context, tx *sql.Tx, e inbox.Event[events.OrderPlaced]) error {
	return sqlcstd.New(tx).CreateOrder(ctx, sqlcstd.CreateOrderParams{ID: e.Data.OrderID, UserID: e.Data.UserID})
}
