package inboxtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/schema/json"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type order struct {
	ID  string
	SKU string
	Qty int
}

type reserved struct{ OrderID string }

var (
	placed = event.Type[order]{
		Name: "shop.order.placed", Topic: "orders", Key: func(o order) string { return o.ID }, Codec: json.New[order](),
	}
	reservedV1 = event.Type[reserved]{
		Name: "shop.stock.reserved", Topic: "stock", Key: func(r reserved) string { return r.OrderID }, Codec: json.New[reserved](),
	}
)

// orders are events of five keys; all keys touch the same two rows of stock.
func orders() (drafts []event.Draft) {
	for n := range 15 {
		drafts = append(drafts, placed.New(order{ID: fmt.Sprint("o-", n%5), SKU: []string{"milk", "tea"}[n%2], Qty: 1 + n}))
	}
	return drafts
}

const tables = `CREATE TABLE stock (sku text PRIMARY KEY, qty int NOT NULL);
	INSERT INTO stock VALUES ('milk', 1000), ('tea', 1000);
	CREATE TABLE line (n bigint GENERATED ALWAYS AS IDENTITY, order_id text, qty int, no int)`

// database is the consumer's.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
		for _, up := range []func(context.Context, *pgx.Conn) error{migrate.Inbox("").Up, migrate.Outbox("").Up} {
			if err := up(t.Context(), c.Conn()); err != nil {
				return err
			}
		}
		_, err := c.Exec(t.Context(), tables)
		return err
	}))
	return pool
}

// emptied returns the same database each time, as new: quicker than a new one.
func emptied(t testing.TB) func(testing.TB) *pgxpool.Pool {
	t.Helper()
	pool := database(t)
	return func(t testing.TB) *pgxpool.Pool {
		t.Helper()
		_, err := pool.Exec(t.Context(), `DELETE FROM inbox.seen; DELETE FROM inbox.seen_foreign; DELETE FROM inbox.dead;
			DELETE FROM outbox.event; DELETE FROM line; UPDATE stock SET qty = 1000`)
		require.NoError(t, err)
		return pool
	}
}

// few returns databases for parallel subtests of t, which share them: a subtest
// takes one when it is free. Making one costs more than what most do in it.
func few(t *testing.T) (take func(t testing.TB) func(testing.TB) *pgxpool.Pool) {
	t.Helper()
	free := make(chan func(testing.TB) *pgxpool.Pool, 3)
	for range cap(free) {
		free <- emptied(t)
	}
	return func(t testing.TB) func(testing.TB) *pgxpool.Pool {
		d := <-free
		t.Cleanup(func() { free <- d })
		return d
	}
}

// state is everything that the handlers of these tests may change.
var state = inboxtest.Query(
	`SELECT sku, qty FROM stock`,
	`SELECT order_id, qty, no FROM line`,
	`SELECT type, key, convert_from(payload, 'UTF8') AS payload FROM outbox.event`,
)

type (
	handle    = func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error
	handleSQL = func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error
)

// config is quick to retry.
func config(from brokers.Subscriber) inbox.Config {
	return inbox.Config{
		Consumer: "inventory", From: from, RetryBase: time.Millisecond, RetryMax: 10 * time.Millisecond, Attempts: 3,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// consumer has one handler, which is given the pool that it may not use.
func consumer(handler func(pool *pgxpool.Pool) handle) inboxtest.Consumer {
	return inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
		in, err := inbox.New(pool, config(from))
		if err == nil {
			inbox.On(in, placed, handler(pool))
		}
		return in, err
	}}
}

func consumerSQL(handler handleSQL) inboxtest.Consumer {
	return inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
		in, err := inbox.New(pool, config(from))
		if err == nil {
			inbox.OnSQL(in, placed, handler)
		}
		return in, err
	}}
}

type handleBatch = func(ctx context.Context, tx pgx.Tx, events []inbox.Event[order]) error

func consumerBatch(handler func(pool *pgxpool.Pool) handleBatch) inboxtest.Consumer {
	return inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
		in, err := inbox.New(pool, config(from))
		if err == nil {
			inbox.OnBatch(in, placed, handler(pool))
		}
		return in, err
	}}
}

const (
	takeStock = `UPDATE stock SET qty = qty - $2 WHERE sku = $1`
	addLine   = `INSERT INTO line (order_id, qty) VALUES ($1, $2)`
)

// reserve is a good handler.
func reserve(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
	if _, err := tx.Exec(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, addLine, e.Data.ID, e.Data.Qty)
	return err
}

// reserveAll is a good handler of batches, which locks rows in one order.
func reserveAll(ctx context.Context, tx pgx.Tx, events []inbox.Event[order]) error {
	events = slices.SortedStableFunc(slices.Values(events), func(a, b inbox.Event[order]) int { return strings.Compare(a.Data.SKU, b.Data.SKU) })
	for _, e := range events {
		if err := reserve(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

func newOutbox(t testing.TB, pool *pgxpool.Pool) *outbox.Outbox {
	t.Helper()
	ob, err := outbox.New(t.Context(), pool, outbox.Config{Source: "/inventory", Types: []event.Any{reservedV1}})
	require.NoError(t, err)
	return ob
}

// recorder is a testing.TB that fails alone.
type recorder struct {
	testing.TB
	text strings.Builder
}

func (r *recorder) Helper() {}
func (r *recorder) Fatal(args ...any) {
	fmt.Fprintln(&r.text, args...)
	runtime.Goexit()
}
func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }

// failure returns what a test that calls f would report; it must end there.
func failure(t *testing.T, f func(t testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	passed := make(chan bool, 1)
	go func() {
		ended := false
		defer func() { passed <- ended }()
		f(r)
		ended = true
	}()
	require.False(t, <-passed, "the test should have failed")
	return r.text.String()
}
