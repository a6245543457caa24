package relay_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/relay"
)

// Some events of the log, under other topics, from where another pipeline stands.
func ExamplePipeline() {
	var publisher brokers.Publisher // kafka.NewPublisher or rabbitmq.NewPublisher
	_ = relay.Pipeline{
		Name:   "kafka",
		To:     publisher,
		Filter: relay.Filter{Topics: []string{"orders", "payments"}},
		Topic:  func(topic string) string { return "shop." + topic + ".v1" },
		Start:  relay.Start{Pipeline: "rabbitmq"}, // stop that one, then drop it
	}
}

// A filter is widened: the relays of the pipeline are stopped, start with the new
// filter afterwards, and publish what it lets through from where they were.
func ExampleChangeFilter() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://outbox_relay@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	wider := relay.Filter{Topics: []string{"orders", "payments", "refunds"}}
	if err := relay.ChangeFilter(ctx, pool, "", "kafka", wider); err != nil {
		log.Fatal(err) // for example ErrPipelineHeld, while a relay still runs it
	}
}

// The pipeline that a stream has moved away from is dropped: it no longer keeps
// events from being truncated.
func ExampleDropPipeline() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://outbox_relay@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := relay.DropPipeline(ctx, pool, "", "rabbitmq", relay.DropOptions{}); err != nil {
		log.Fatal(err) // for example ErrPipelineHeld, while a relay still runs it
	}
	status, err := relay.ReadStatus(ctx, pool, "")
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range status.Pipelines {
		fmt.Printf("%s: %d events behind, the oldest for %.0f s\n", p.Name, p.Backlog, p.OldestUnsentSeconds)
	}
}
