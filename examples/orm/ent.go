package orm

import (
	"context"
	"database/sql"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/examples/orm/ent"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
)

// PlaceWithEnt places an order and writes its event in one transaction. An
// ent.Tx does not show its *sql.Tx, so it goes the other way round: we begin the
// transaction, and ent works inside it.
func PlaceWithEnt(ctx context.Context, db *sql.DB, ob *outbox.Outbox, e events.OrderPlaced) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	if err := entInside(tx).Order.Create().SetID(e.OrderID).SetUserID(e.UserID).Exec(ctx); err != nil {
		return err
	}
	if err := ob.WithKeyLock().WriteSQL(ctx, tx, events.OrderPlacedV1.New(e)); err != nil {
		return err
	}
	return tx.Commit()
}

// RecordWithEnt is a handler that records an order.
func RecordWithEnt(ctx context.Context, tx *sql.Tx, e inbox.Event[events.OrderPlaced]) error {
	return entInside(tx).Order.Create().SetID(e.Data.OrderID).SetUserID(e.Data.UserID).Exec(ctx)
}

// entInside returns a client whose every statement is part of tx.
func entInside(tx *sql.Tx) *ent.Client {
	return ent.NewClient(ent.Driver(entDriver{entsql.Conn{ExecQuerier: tx}}))
}

type entDriver struct{ entsql.Conn }

func (entDriver) Dialect() string { return dialect.Postgres }

// Tx is called for changes that take several statements, for example with
// edges: they belong to our transaction, whose end is ours to decide.
func (d entDriver) Tx(context.Context) (dialect.Tx, error) { return dialect.NopTx(d), nil }

func (entDriver) Close() error { return nil }
