package health_test

import (
	"log"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/relay/health"
)

// A service that embeds a relay keeps its probes and adds where its operators look.
func ExampleProgress() {
	var pool *pgxpool.Pool // the relay's own
	var cfg relay.Config
	r, err := relay.New(pool, cfg)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /livez", health.Live()) // the service's own, which knows nothing of the relay
	mux.Handle("GET /outbox/progress", health.Progress(health.Relay{Health: r.Health}))
	log.Fatal(http.ListenAndServe("localhost:8080", mux)) //nolint:gosec // an example
}
