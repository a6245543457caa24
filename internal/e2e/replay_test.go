package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// A consumer that has handled the events swallows the replay; a new one that sees
// nothing but a replay, here to a topic of its own, handles each once and in order.
func TestReplayIsSwallowedByWhoHasHandledIt(t *testing.T) {
	t.Parallel()
	const users, each = 3, 20
	pool := pgtest.Pool(t)
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	require.NoError(t, migrate.Outbox("").Up(t.Context(), conn))
	require.NoError(t, migrate.Inbox("").Up(t.Context(), conn))
	_, err = conn.Exec(t.Context(), `CREATE TABLE effects (at bigserial, consumer text, user_id text, n bigint)`)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))

	placed := orderPlacedType("orders")
	broker := brokertest.NewMemory(brokertest.MemoryConfig{AutoCreate: 4})
	wire := avro.SingleObject(placed.Codec.Schema())
	pipeline := relay.Pipeline{Name: "memory", To: broker.Publisher(), Wire: wire}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))

	ob, err := outbox.New(t.Context(), pool, outbox.Config{Source: "/shop", Types: []event.Any{placed}})
	require.NoError(t, err)
	for n := range each {
		for u := range users {
			require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				return ob.Write(t.Context(), tx, placed.New(orderPlaced{OrderID: fmt.Sprint(u, "/", n), UserID: fmt.Sprint("u", u), N: int64(n)}))
			}))
		}
	}
	r, err := relay.New(pool, relay.Config{Pipelines: []relay.Pipeline{pipeline}, Logger: log})
	require.NoError(t, err)
	stopRelay := background(t, r.Run)
	require.Eventually(t, func() bool { return len(broker.Log("orders")) == users*each }, 30*time.Second, 5*time.Millisecond)
	consume := func(consumer, topic string) {
		in, err := inbox.New(pool, inbox.Config{Consumer: consumer, From: broker.Subscriber(consumer, topic), Wire: wire, Logger: log})
		require.NoError(t, err)
		inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[orderPlaced]) error {
			_, err := tx.Exec(ctx, `INSERT INTO effects (consumer, user_id, n) VALUES ($1, $2, $3)`, consumer, e.Data.UserID, e.Data.N)
			return err
		})
		background(t, in.Run)
	}
	effects := func(consumer string) (n int) {
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM effects WHERE consumer = $1`, consumer).Scan(&n))
		return n
	}
	consume("inventory", "orders")
	require.Eventually(t, func() bool { return effects("inventory") == users*each }, 30*time.Second, 5*time.Millisecond)
	stopRelay() // its position is stored

	got, err := relay.Replay(t.Context(), pool, relay.ReplayConfig{Pipeline: pipeline, Rate: 10_000, Reason: "a test", Logger: log})
	require.NoError(t, err)
	require.EqualValues(t, users*each, got.Published)
	replayed := broker.Log("orders")[users*each:]
	require.Len(t, replayed, users*each)
	require.Equal(t, got.ID, replayed[0].Headers[relay.HeaderReplayID])

	// Delivered behind the replay in every unit: when they have taken effect, the
	// replay has been seen.
	for u := range users {
		require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			return ob.Write(t.Context(), tx, placed.New(orderPlaced{OrderID: fmt.Sprint(u, "/last"), UserID: fmt.Sprint("u", u), N: each}))
		}))
	}
	background(t, r.Run)
	require.Eventually(t, func() bool { return effects("inventory") >= users*(each+1) }, 30*time.Second, 5*time.Millisecond)

	again := relay.Pipeline{Name: "again", To: broker.Publisher(), Wire: wire, Topic: func(string) string { return "orders.again" }}
	_, err = relay.Replay(t.Context(), pool, relay.ReplayConfig{Pipeline: pipeline, To: &again, Rate: 10_000, Reason: "a new consumer", Logger: log})
	require.NoError(t, err)
	consume("newcomer", "orders.again")
	require.Eventually(t, func() bool { return effects("newcomer") >= users*(each+1) }, 30*time.Second, 5*time.Millisecond)
	for _, consumer := range []string{"inventory", "newcomer"} {
		for u := range users {
			rows, err := pool.Query(t.Context(), `SELECT n FROM effects WHERE consumer = $1 AND user_id = $2 ORDER BY at`, consumer, fmt.Sprint("u", u))
			require.NoError(t, err)
			list, err := pgx.CollectRows(rows, pgx.RowTo[int])
			require.NoError(t, err)
			require.Len(t, list, each+1, "each once")
			require.IsIncreasing(t, list)
		}
	}
}

// background runs until it is stopped or the test ends.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}
