package relay_test

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/relay"
)

// Publish the outbox of a service until SIGTERM.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pool, err := pgxpool.New(ctx, "postgres://outbox_relay@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	var publisher brokers.Publisher // kafka.NewPublisher or rabbitmq.NewPublisher
	r, err := relay.New(pool, relay.Config{
		Pipelines: []relay.Pipeline{{Name: "kafka", To: publisher}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := r.Run(ctx); err != nil { // nil once it has drained
		log.Fatal(err)
	}
}

// A restored dump is refused until somebody has said that it belongs here.
func ExampleRebase() {
	ctx := context.Background()
	owner, err := pgxpool.New(ctx, "postgres://postgres@localhost/shop_restored")
	if err != nil {
		log.Fatal(err)
	}
	defer owner.Close()
	if err := relay.Rebase(ctx, owner, ""); err != nil {
		log.Fatal(err)
	}
}
