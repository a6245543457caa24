package inbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/brokertest"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// order is the data of the tests' event type.
type order struct {
	ID string `json:"id"`
	N  int    `json:"n"`
}

var placed = event.Type[order]{Name: "shop.order.placed", Topic: "orders", Key: func(o order) string { return o.ID }, Codec: jsonCodec{}}

type jsonCodec struct{}

func (jsonCodec) Schema() event.Schema {
	return event.Schema{Format: "json", ContentType: "application/json"}
}
func (jsonCodec) Encode(v any) ([]byte, error)                    { return json.Marshal(v) }
func (jsonCodec) Decode(data []byte, _ event.Schema, v any) error { return json.Unmarshal(data, v) }

const (
	source   = "/shop/orders"
	patience = 20 * time.Second
)

// message is an order as it arrives, with a new id.
func message(key string, n int) brokers.Message {
	data, err := json.Marshal(order{ID: key, N: n})
	if err != nil {
		panic(err)
	}
	return brokers.Message{
		Topic: "orders", Key: key, ID: uuid.Must(uuid.NewV7()).String(), Source: source, Type: placed.Name,
		Time: time.Now(), ContentType: "application/json", Headers: map[string]string{"tenant": "a"}, Payload: data,
	}
}

// world is a migrated database, a broker with a topic of two units, and a table
// of effects.
type world struct {
	t      testing.TB
	url    string
	pool   *pgxpool.Pool
	broker *brokertest.Memory
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return worldAt(t, pgtest.URL(t))
}

func worldAt(t testing.TB, url string) *world {
	t.Helper()
	w := &world{t: t, url: url, pool: connect(t, url), broker: brokertest.NewMemory(brokertest.MemoryConfig{})}
	w.broker.CreateTopic("orders", 2, 0)
	conn, err := w.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, migrate.Inbox("").Up(t.Context(), conn.Conn()))
	w.exec(`CREATE TABLE effect (at bigint GENERATED ALWAYS AS IDENTITY, consumer text, id text, key text, n int)`)
	return w
}

func connect(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	cfg.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.pool.Exec(context.Background(), sql, args...)
	require.NoError(w.t, err)
}

func (w *world) publish(msgs ...brokers.Message) {
	w.t.Helper()
	for _, err := range w.broker.Publisher().Publish(context.Background(), msgs) {
		require.NoError(w.t, err)
	}
}

// count answers a query for one number.
func (w *world) count(sql string, args ...any) int {
	w.t.Helper()
	var n int
	require.NoError(w.t, w.pool.QueryRow(context.Background(), sql, args...).Scan(&n))
	return n
}

func (w *world) effects(ids ...string) int {
	w.t.Helper()
	if len(ids) == 0 {
		return w.count(`SELECT count(*) FROM effect`)
	}
	return w.count(`SELECT count(*) FROM effect WHERE id = ANY($1)`, ids)
}

func (w *world) claims() int {
	w.t.Helper()
	return w.count(`SELECT (SELECT count(*) FROM inbox.seen) + (SELECT count(*) FROM inbox.seen_foreign)`)
}

// established registers a consumer as if it had been there for ever: only then
// is an id outside of its window something that it may have handled.
func (w *world) established(consumer string) {
	w.t.Helper()
	w.exec(`INSERT INTO inbox.consumer (name, window_days, created_at) VALUES ($1, 7, '1960-01-01')`, consumer)
}

// config is quick to retry.
func (w *world) config(consumer string) inbox.Config {
	return inbox.Config{
		Consumer: consumer, From: w.broker.Subscriber(consumer, "orders"),
		RetryBase: 2 * time.Millisecond, RetryMax: 20 * time.Millisecond, Attempts: 3,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// insert is the handler of most tests: one row for each effect.
func insert(consumer string) func(context.Context, pgx.Tx, inbox.Event[order]) error {
	return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		_, err := tx.Exec(ctx, `INSERT INTO effect (consumer, id, key, n) VALUES ($1, $2, $3, $4)`, consumer, e.ID, e.Key, e.Data.N)
		return err
	}
}

// running is an inbox in its Run.
type running struct {
	*inbox.Inbox
	t    testing.TB
	stop context.CancelFunc
	done chan error
}

func (w *world) start(cfg inbox.Config, handle func(context.Context, pgx.Tx, inbox.Event[order]) error) *running {
	w.t.Helper()
	in, err := inbox.New(w.pool, cfg)
	require.NoError(w.t, err)
	inbox.On(in, placed, handle)
	return run(w.t, in)
}

func run(t testing.TB, in *inbox.Inbox) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Inbox: in, t: t, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if r.done != nil {
			<-r.done
		}
	})
	return r
}

// end stops the inbox and returns what Run returned.
func (r *running) end() error {
	r.stop()
	return r.wait()
}

func (r *running) wait() error {
	select {
	case err := <-r.done:
		r.done = nil
		return err
	case <-time.After(patience):
		return errors.New("Run did not return")
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 3*time.Millisecond, what)
}

// settled waits until consumer has acknowledged everything.
func (w *world) settled(consumer string) {
	w.t.Helper()
	eventually(w.t, "everything acknowledged by "+consumer, func() bool {
		return w.broker.Unacked(consumer, "orders") == 0
	})
}

var errBroken = fmt.Errorf("the handler is broken")
