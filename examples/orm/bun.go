package orm

import (
	"context"
	"database/sql"

	"github.com/uptrace/bun"

	"github.com/outboxkit/outboxkit/examples/demo/events"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
)

type bunOrder struct {
	bun.BaseModel `bun:"table:orders"`

	ID     string `bun:",pk"`
	UserID string
}

// PlaceWithBun places an order and writes its event in one transaction.
func PlaceWithBun(ctx context.Context, db *bun.DB, ob *outbox.Outbox, e events.OrderPlaced) error {
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewInsert().Model(&bunOrder{ID: e.OrderID, UserID: e.UserID}).Exec(ctx)
		if err != nil {
			return err
		}
		return ob.WithKeyLock().WriteSQL(ctx, tx.Tx, events.OrderPlacedV1.New(e)) // bun.Tx embeds *sql.Tx
	})
}

// RecordWithBun returns a handler that records an order. A bun.Tx cannot be made
// from a *sql.Tx: each query is told its connection.
func RecordWithBun(db *bun.DB) func(context.Context, *sql.Tx, inbox.Event[events.OrderPlaced]) error {
	return func(ctx context.Context, tx *sql.Tx, e inbox.Event[events.OrderPlaced]) error {
		_, err := db.NewInsert().Conn(tx).Model(&bunOrder{ID: e.Data.OrderID, UserID: e.Data.UserID}).Exec(ctx)
		return err
	}
}
