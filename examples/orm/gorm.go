package orm

import (
	"context"
	"database/sql"
	"fmt"

	"gorm.io/gorm"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
)

// Order is a row of the table orders.
type Order struct {
	ID     string
	UserID string
}

// PlaceWithGORM places an order and writes its event in one transaction.
func PlaceWithGORM(ctx context.Context, db *gorm.DB, ob *outbox.Outbox, e events.OrderPlaced) error {
	return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&Order{ID: e.OrderID, UserID: e.UserID}).Error; err != nil {
			return err
		}
		sqlTx, err := gormTx(tx)
		if err != nil {
			return err
		}
		return ob.WithKeyLock().WriteSQL(ctx, sqlTx, events.OrderPlacedV1.New(e))
	})
}

// gormTx returns the transaction that GORM has begun.
func gormTx(tx *gorm.DB) (*sql.Tx, error) {
	pool := tx.Statement.ConnPool
	if prepared, ok := pool.(*gorm.PreparedStmtTX); ok { // gorm.Config.PrepareStmt
		pool = prepared.Tx
	}
	sqlTx, ok := pool.(*sql.Tx)
	if !ok {
		return nil, fmt.Errorf("want a GORM transaction, got one over %T", pool)
	}
	return sqlTx, nil
}

// RecordWithGORM returns a handler that records an order. db says how GORM is
// configured; its connections are not used.
func RecordWithGORM(db *gorm.DB) func(context.Context, *sql.Tx, inbox.Event[events.OrderPlaced]) error {
	return func(ctx context.Context, tx *sql.Tx, e inbox.Event[events.OrderPlaced]) error {
		return gormInside(ctx, db, tx).Create(&Order{ID: e.Data.OrderID, UserID: e.Data.UserID}).Error
	}
}

// gormInside returns a session whose every statement is part of tx; a
// Transaction of GORM inside it is a savepoint.
func gormInside(ctx context.Context, db *gorm.DB, tx *sql.Tx) *gorm.DB {
	session := db.Session(&gorm.Session{NewDB: true, Context: ctx})
	session.Statement.ConnPool = tx
	return session
}
