package orm

import (
	"context"

	"github.com/uptrace/bun"

	"github.com/outboxkit/outboxkit/examples/demo/events"
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
