package inbox_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/relay"
)

// path is the whole way of an event within one world: outbox, relay, broker,
// and inboxes that the test adds.
type path struct {
	*world
	wire event.WireFormat
}

// newPath starts the relay. Besides orders there is a topic mail.
func newPath(t *testing.T, wire event.WireFormat) *path {
	t.Helper()
	p := &path{newWorld(t), wire}
	p.broker.CreateTopic("mail", 2, 0)
	conn, err := p.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, migrate.Outbox("").Up(t.Context(), conn.Conn()))

	r, err := relay.New(p.pool, relay.Config{
		Pipelines: []relay.Pipeline{{Name: "memory", To: p.broker.Publisher(), Wire: wire}},
		Logger:    slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return p
}

func (p *path) outbox(types ...event.Any) *outbox.Outbox {
	p.t.Helper()
	ob, err := outbox.New(p.t.Context(), p.pool, outbox.Config{Source: source, Types: types})
	require.NoError(p.t, err)
	return ob
}

// write writes the events in a transaction of their own.
func (p *path) write(ob *outbox.Outbox, drafts ...event.Draft) {
	p.t.Helper()
	require.NoError(p.t, pgx.BeginFunc(p.t.Context(), p.pool, func(tx pgx.Tx) error {
		return ob.Write(p.t.Context(), tx, drafts...)
	}))
}

// consume runs an inbox that opens wire.
func (p *path) consume(cfg inbox.Config, wire event.WireFormat, register func(*inbox.Inbox)) *running {
	p.t.Helper()
	cfg.Wire = wire
	in, err := inbox.New(p.pool, cfg)
	require.NoError(p.t, err)
	register(in)
	return run(p.t, in)
}

// keysOf returns the effects' keys of a consumer in their order.
func (p *path) keysOf(consumer string) []string {
	p.t.Helper()
	rows, err := p.pool.Query(context.Background(), `SELECT key FROM effect WHERE consumer = $1 ORDER BY at`, consumer)
	require.NoError(p.t, err)
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(p.t, err)
	return keys
}
