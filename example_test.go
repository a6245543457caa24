package outboxkit_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// OrderPlaced is the data of the event, shared by producer and consumers.
type OrderPlaced struct {
	OrderID string   `avro:"orderId"`
	UserID  string   `avro:"userId"`
	Items   []string `avro:"items"`
}

// OrderPlacedV1 names it, and says where it goes, what it is ordered by and how
// it is encoded.
var OrderPlacedV1 = event.Type[OrderPlaced]{
	Name:  "shop.order.placed",
	Topic: "orders",
	Key:   func(e OrderPlaced) string { return e.OrderID },
	Codec: avro.MustParse(`{
		"type": "record", "name": "OrderPlaced", "namespace": "shop",
		"fields": [
			{"name": "orderId", "type": "string"},
			{"name": "userId", "type": "string"},
			{"name": "items", "type": {"type": "array", "items": "string"}}
		]}`),
}

// The whole way: a producer, the relay and a consumer.
func Example() {
	ctx := context.Background()
	shop, err := pgxpool.New(ctx, "postgres://localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	if err := produce(ctx, shop, OrderPlaced{OrderID: "o-1", UserID: "u-1", Items: []string{"apple"}}); err != nil {
		log.Fatal(err)
	}
	kcfg := kafka.Config{Brokers: []string{"localhost:9092"}, Group: "inventory"}
	go func() {
		if err := publish(ctx, shop, kcfg); err != nil {
			log.Fatal(err)
		}
	}()
	inventory, err := pgxpool.New(ctx, "postgres://localhost/inventory")
	if err != nil {
		log.Fatal(err)
	}
	if err := consume(ctx, inventory, kcfg); err != nil {
		log.Fatal(err)
	}
}

// produce saves an order and its event in one transaction.
func produce(ctx context.Context, pool *pgxpool.Pool, o OrderPlaced) error {
	ob, err := outbox.New(ctx, pool, outbox.Config{Source: "/shop/orders", Types: []event.Any{OrderPlacedV1}})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, o.OrderID); err != nil {
			return err
		}
		return ob.Write(ctx, tx, OrderPlacedV1.New(o))
	})
}

// publish runs the relay inside the service; `relay run` is the same beside it.
func publish(ctx context.Context, pool *pgxpool.Pool, cfg kafka.Config) error {
	to := kafka.NewPublisher(cfg)
	defer func() { _ = to.Close() }()
	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{{Name: "kafka", To: to, Wire: avro.SingleObject()}}})
	if err != nil {
		return err
	}
	return r.Run(ctx) // returns when drained
}

// consume changes the stock once for every order.
func consume(ctx context.Context, pool *pgxpool.Pool, cfg kafka.Config) error {
	in, err := inbox.New(pool, inbox.Config{
		Consumer: "inventory",
		From:     kafka.NewSubscriber(cfg, "orders"),
		Wire:     avro.SingleObject(OrderPlacedV1.Codec.Schema()),
	})
	if err != nil {
		return err
	}
	inbox.On(in, OrderPlacedV1, func(ctx context.Context, tx pgx.Tx, e inbox.Event[OrderPlaced]) error {
		_, err := tx.Exec(ctx, `UPDATE stock SET qty = qty - 1 WHERE sku = ANY($1)`, e.Data.Items)
		return err // nil: effect and dedup record commit together; error: retried, then a dead letter
	})
	return in.Run(ctx)
}
