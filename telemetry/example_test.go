package telemetry_test

import (
	"context"
	"log"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/telemetry"
)

// A service that writes events, relays them itself and consumes others', with the
// providers that it has set for OpenTelemetry.
func Example() {
	ctx := context.Background()
	var pool *pgxpool.Pool // of the service
	var publisher brokers.Publisher
	var subscriber brokers.Subscriber

	t, err := telemetry.New(telemetry.Config{})
	if err != nil {
		log.Fatal(err)
	}
	slog.SetDefault(slog.New(telemetry.LogHandler(slog.NewJSONHandler(os.Stderr, nil))))

	// Events carry the trace of the request that writes them.
	_, err = outbox.New(ctx, pool, outbox.Config{
		Source: "/shop/orders", Types: []event.Any{placed}, TraceHeaders: telemetry.TraceHeaders,
	})
	if err != nil {
		log.Fatal(err)
	}

	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{{
		Name: "kafka", To: t.Publisher(publisher, telemetry.Pipeline{Name: "kafka", System: "kafka"}),
	}}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := t.ObserveRelay(r, ""); err != nil {
		log.Fatal(err)
	}
	go t.WatchOutbox(ctx, pool, "", "") //nolint:errcheck // ends with ctx

	in, err := inbox.New(pool, inbox.Config{
		Consumer: "inventory", From: subscriber, Middleware: []inbox.Middleware{t.Middleware("inventory")},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := t.ObserveInbox(in, "inventory"); err != nil {
		log.Fatal(err)
	}
	go t.WatchInbox(ctx, pool, "", "") //nolint:errcheck // ends with ctx
}
