package inbox_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// OrderPlaced and OrderPlacedV1 are shared with the producer, in a package that
// both import.
type OrderPlaced struct {
	OrderID string
	Items   []string
}

var OrderPlacedV1 = event.Type[OrderPlaced]{
	Name:  "shop.order.placed",
	Topic: "orders",
	Key:   func(e OrderPlaced) string { return e.OrderID },
	Codec: jsonCodec{}, // avro.MustParse(…) in a service
}

// The stock goes down once for each order, however often it is delivered.
func Example() {
	consume := func(ctx context.Context, pool *pgxpool.Pool, orders brokers.Subscriber) error {
		in, err := inbox.New(pool, inbox.Config{Consumer: "inventory", From: orders})
		if err != nil {
			return err
		}
		inbox.On(in, OrderPlacedV1, func(ctx context.Context, tx pgx.Tx, e inbox.Event[OrderPlaced]) error {
			_, err := tx.Exec(ctx, `UPDATE stock SET qty = qty-1 WHERE sku = ANY($1)`, e.Data.Items)
			return err // nil: effect and dedup record commit together; error: retried, then dead-lettered
		})
		return in.Run(ctx)
	}
	_ = consume
}

// Handlers over database/sql (sqlc, GORM, ent, bun) get a *sql.Tx, with the same
// promises.
func ExampleOnSQL() {
	register := func(in *inbox.Inbox) {
		inbox.OnSQL(in, OrderPlacedV1, func(ctx context.Context, tx *sql.Tx, e inbox.Event[OrderPlaced]) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO mail (order_id) VALUES ($1)`, e.Data.OrderID)
			return err
		})
	}
	_ = register
}

// One statement for all events that wait, up to Config.BatchSize.
func ExampleOnBatch() {
	register := func(in *inbox.Inbox) {
		inbox.OnBatch(in, OrderPlacedV1, func(ctx context.Context, tx pgx.Tx, events []inbox.Event[OrderPlaced]) error {
			var orders, sources []string
			for _, e := range events {
				orders, sources = append(orders, e.Data.OrderID), append(sources, e.Source)
			}
			_, err := tx.Exec(ctx, `INSERT INTO mail (order_id, source) SELECT * FROM unnest($1::text[], $2::text[])`, orders, sources)
			return err // nil: all commit together; error: each is handled alone
		})
	}
	_ = register
}

// An error that another attempt cannot mend need not wait for one.
func ExamplePermanent() {
	handle := func(_ context.Context, _ pgx.Tx, e inbox.Event[OrderPlaced]) error {
		if len(e.Data.Items) == 0 {
			return inbox.Permanent(fmt.Errorf("order %s has no items", e.Data.OrderID))
		}
		return nil
	}
	err := handle(context.Background(), nil, inbox.Event[OrderPlaced]{Data: OrderPlaced{OrderID: "o-1"}})
	fmt.Println(err)
	// Output: order o-1 has no items
}
