package inboxtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/inbox/inboxtest"
	"github.com/outboxkit/outboxkit/outbox"
)

func stress(database func(testing.TB) *pgxpool.Pool) inboxtest.Stress {
	return inboxtest.Stress{Events: orders(), Database: database, Snapshot: state}
}

func TestGoodHandlersPass(t *testing.T) {
	t.Parallel()
	take := few(t)
	for name, c := range map[string]inboxtest.Consumer{
		"pgx": consumer(func(*pgxpool.Pool) handle { return reserve }),
		"sql": consumerSQL(func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
			if _, err := tx.ExecContext(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, addLine, e.Data.ID, e.Data.Qty)
			return err
		}),
		"derived events": consumer(func(pool *pgxpool.Pool) handle {
			ob, err := outbox.New(context.Background(), pool, outbox.Config{Source: "/inventory", Types: []event.Any{reservedV1}})
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if err != nil {
					return err
				}
				return ob.Write(ctx, tx, reservedV1.New(reserved{OrderID: e.Data.ID}))
			}
		}),
		"batch and copy": consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				b := &pgx.Batch{}
				b.Queue(takeStock, e.Data.SKU, e.Data.Qty)
				b.Queue(addLine, e.Data.ID, e.Data.Qty)
				if err := tx.SendBatch(ctx, b).Close(); err != nil {
					return err
				}
				_, err := tx.CopyFrom(ctx, pgx.Identifier{"line"}, []string{"order_id"}, pgx.CopyFromRows([][]any{{e.Data.ID}}))
				return err
			}
		}),
		"batches": consumerBatch(func(*pgxpool.Pool) handleBatch { return reserveAll }),
		"its own statements without context": consumer(func(*pgxpool.Pool) handle {
			return func(_ context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				return reserve(context.Background(), tx, e)
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stress(take(t))
			c.RequireIdempotent(t, s)
			for n := range s.Events {
				s.Events[n].Key = ""
			}
			c.RequireIdempotent(t, s)
		})
	}
}

// bad are handlers that work when every event comes once.
var bad = map[string]struct {
	consumer inboxtest.Consumer
	want     []string // in the report
	not      []string
}{
	"changes outside its transaction": {
		consumer: consumer(func(pool *pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, err := pool.Exec(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, addLine, e.Data.ID, e.Data.Qty)
				return err
			}
		}),
		want: []string{"* crashes:", `- `, `{"sku":"tea","qty":`, "outside their transaction", takeStock},
		not:  []string{"* order:"},
	},
	"a transaction of its own": {
		consumer: consumer(func(pool *pgxpool.Pool) handle {
			return func(ctx context.Context, _ pgx.Tx, e inbox.Event[order]) error {
				return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return reserve(ctx, tx, e) })
			}
		}),
		want: []string{"* crashes:", "+   {\"order_id\":\"o-0\"", "outside their transaction", takeStock},
	},
	"remembers what was rolled back": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			var seen sync.Map
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, again := seen.LoadOrStore(e.ID, true); again {
					return nil
				}
				return reserve(ctx, tx, e)
			}
		}),
		want: []string{"* crashes:", "-   {\"order_id\":\"o-0\""},
		not:  []string{"* order:"},
	},
	"depends on the order across keys": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if _, err := tx.Exec(ctx, `LOCK line`); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `INSERT INTO line (order_id, qty, no) SELECT $1, $2, count(*) FROM line`, e.Data.ID, e.Data.Qty)
				return err
			}
		}),
		want: []string{"* order:", `"no":`},
	},
	"overwrites what another key has written": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				var qty int
				if err := tx.QueryRow(ctx, `SELECT qty FROM stock WHERE sku = $1`, e.Data.SKU).Scan(&qty); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `UPDATE stock SET qty = $2 WHERE sku = $1`, e.Data.SKU, qty-e.Data.Qty)
				return err
			}
		}),
		want: []string{"* duplicates:", `{"sku":"tea","qty":`},
		not:  []string{"* order:", "outside"},
	},
	"another name for each instance": {
		consumer: inboxtest.Consumer{New: func() func(*pgxpool.Pool, brokers.Subscriber) (*inbox.Inbox, error) {
			var hosts atomic.Int32
			return func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
				cfg := config(from)
				cfg.Consumer = fmt.Sprint("inventory-", hosts.Add(1))
				in, err := inbox.New(pool, cfg)
				inbox.On(in, placed, reserve)
				return in, err
			}
		}()},
		want: []string{"* duplicates:", "* everything:"},
		not:  []string{"* order:", "* crashes:"},
	},
	"keeps a state of its own": { // each instance has one
		consumer: consumer(func(*pgxpool.Pool) handle {
			var mu sync.Mutex
			left := map[string]int{}
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				mu.Lock()
				defer mu.Unlock()
				if _, known := left[e.Data.SKU]; !known {
					left[e.Data.SKU] = 1000
				}
				left[e.Data.SKU] -= e.Data.Qty
				_, err := tx.Exec(ctx, `UPDATE stock SET qty = $2 WHERE sku = $1`, e.Data.SKU, left[e.Data.SKU])
				return err
			}
		}),
		want: []string{"* duplicates:", "* crashes:"},
		not:  []string{"* order:"},
	},
	"writes elsewhere what failed": { // only a statement's failure shows it
		consumer: consumer(func(pool *pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				err := reserve(ctx, tx, e)
				if err != nil {
					_, _ = pool.Exec(ctx, `INSERT INTO line (order_id) VALUES ('failed')`)
				}
				return err
			}
		}),
		want: []string{"* crashes:", `+   {"order_id":"failed"`, "VALUES ('failed')"},
		not:  []string{"* order:", "* duplicates:", "\n- "},
	},
	"changes outside its batch's transaction": {
		consumer: consumerBatch(func(pool *pgxpool.Pool) handleBatch {
			return func(ctx context.Context, tx pgx.Tx, events []inbox.Event[order]) error {
				if _, err := pool.Exec(ctx, takeStock, "tea", len(events)); err != nil {
					return err
				}
				return reserveAll(ctx, tx, events)
			}
		}),
		want: []string{"* crashes:", `{"sku":"tea","qty":`, "outside their transaction", takeStock},
		not:  []string{"* order:"},
	},
	"a transaction of its own for a batch": {
		consumer: consumerBatch(func(pool *pgxpool.Pool) handleBatch {
			return func(ctx context.Context, _ pgx.Tx, events []inbox.Event[order]) error {
				return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return reserveAll(ctx, tx, events) })
			}
		}),
		want: []string{"* crashes:", "+   {\"order_id\":\"o-0\"", "outside their transaction", takeStock},
		not:  []string{"* order:"},
	},
	"remembers what was rolled back with its batch": {
		consumer: consumerBatch(func(*pgxpool.Pool) handleBatch {
			var mu sync.Mutex
			seen := map[string]bool{}
			return func(ctx context.Context, tx pgx.Tx, events []inbox.Event[order]) error {
				mu.Lock()
				defer mu.Unlock()
				var fresh []inbox.Event[order]
				for _, e := range events {
					if !seen[e.ID] {
						seen[e.ID] = true
						fresh = append(fresh, e)
					}
				}
				return reserveAll(ctx, tx, fresh)
			}
		}),
		want: []string{"* crashes:", "-   {\"order_id\":\"o-0\""},
		not:  []string{"* order:"},
	},
	"commits by statement": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if err := reserve(ctx, tx, e); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `COMMIT`)
				return err
			}
		}),
		want: []string{"each event once, in order", "15 transactions were gone when the inbox came to commit them"},
	},
	"commits a pgx.Tx": {
		consumer: consumer(func(*pgxpool.Pool) handle {
			return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				if err := reserve(ctx, tx, e); err != nil {
					return err
				}
				return tx.Commit(ctx)
			}
		}),
		want: []string{"each event once, in order", "the handler of shop.order.placed fails for one event after the other", "the handler ended its transaction"},
	},
	"commits a sql.Tx": {
		consumer: consumerSQL(func(ctx context.Context, tx *sql.Tx, e inbox.Event[order]) error {
			if _, err := tx.ExecContext(ctx, takeStock, e.Data.SKU, e.Data.Qty); err != nil {
				return err
			}
			return tx.Commit()
		}),
		want: []string{"each event once, in order", "15 events counted as handled before: their handler has committed the transaction itself"},
	},
}

func TestBadHandlersAreCaught(t *testing.T) {
	t.Parallel()
	take := few(t)
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stress(take(t))
			text := failure(t, func(t testing.TB) { c.consumer.RequireIdempotent(t, s) })
			for _, want := range c.want {
				require.Contains(t, text, want)
			}
			for _, not := range c.not {
				require.NotContains(t, text, not)
			}
		})
	}
}

// Transactions wait for each other before they commit: what overwrites another
// key's change does so with two events already, and not by chance.
func TestTwoEventsAreEnoughToMeet(t *testing.T) {
	t.Parallel()
	db := emptied(t)
	for range 5 {
		s := stress(db)
		s.Events = []event.Draft{s.Events[0], s.Events[2]} // two keys, one row
		text := failure(t, func(t testing.TB) { bad["overwrites what another key has written"].consumer.RequireIdempotent(t, s) })
		require.NotContains(t, text, "* order:")
	}
}

// Each run has a database of its own if the user wants it so.
func TestNewDatabaseForEachRun(t *testing.T) {
	t.Parallel()
	s := inboxtest.Stress{Events: orders()[:4], Snapshot: state}
	var made []*pgxpool.Pool
	s.Database = func(t testing.TB) *pgxpool.Pool {
		made = append(made, database(t))
		return made[len(made)-1]
	}
	consumer(func(*pgxpool.Pool) handle { return reserve }).RequireIdempotent(t, s)
	require.Len(t, made, 5)
	for _, pool := range made {
		var lines int
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM line`).Scan(&lines))
		require.Equal(t, 4, lines)
	}
}

// Effects outside the database are part of the state if Snapshot says so.
func TestMailsSentTwiceAreCaught(t *testing.T) {
	t.Parallel()
	var mails *mailServer
	c := consumer(func(*pgxpool.Pool) handle {
		return func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
			mails.send(fmt.Sprint("order ", e.Data.ID, " of ", e.Data.Qty))
			return reserve(ctx, tx, e)
		}
	})
	s := stress(emptied(t))
	empty := s.Database
	s.Database = func(t testing.TB) *pgxpool.Pool {
		mails = &mailServer{}
		return empty(t)
	}
	s.Snapshot = func(context.Context, *pgxpool.Pool) (string, error) { return mails.String(), nil }
	text := failure(t, func(t testing.TB) { c.RequireIdempotent(t, s) })
	require.Contains(t, text, "* crashes:")
	require.Contains(t, text, "+ order o-0 of 1\n")
}

type mailServer struct {
	mu   sync.Mutex
	sent []string
}

func (m *mailServer) send(mail string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, mail)
}

func (m *mailServer) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.sent)
	return strings.Join(m.sent, "\n")
}

// A seed repeats where connections break and what is delivered when.
func TestSeedRepeats(t *testing.T) {
	t.Parallel()
	db := emptied(t)
	observe := func(seed uint64) (seen []string) {
		var mu sync.Mutex
		s := stress(db)
		s.Seed = seed
		c := inboxtest.Consumer{New: func(pool *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
			cfg := config(from)
			cfg.Concurrency = 1
			in, err := inbox.New(pool, cfg)
			inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
				err := reserve(ctx, tx, e)
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, fmt.Sprint(e.Data.Qty, err != nil))
				return err
			})
			return in, err
		}}
		s.Events = s.Events[:6]
		for n := range s.Events {
			s.Events[n].Key = "one" // one lane: no scheduler takes part
		}
		c.RequireIdempotent(t, s)
		return seen[:6+6+3*6] // of one instance: in two runs once, then interrupted twice
	}
	first := observe(7)
	require.Equal(t, first, observe(7))
	require.NotEqual(t, first, observe(8))
	text := failure(t, func(t testing.TB) {
		s := stress(db)
		s.Seed = 42
		bad["changes outside its transaction"].consumer.RequireIdempotent(t, s)
	})
	require.Contains(t, text, "Stress.Seed 42 repeats this")
}

// What proves nothing is no success.
func TestEmptyTestsFail(t *testing.T) {
	t.Parallel()
	good := consumer(func(*pgxpool.Pool) handle { return reserve })
	take, own := few(t), database(t)
	for name, c := range map[string]struct {
		consumer inboxtest.Consumer
		change   func(s *inboxtest.Stress)
		want     string
	}{
		"no events":    {good, func(s *inboxtest.Stress) { s.Events = nil }, "Stress.Events is not set"},
		"no database":  {good, func(s *inboxtest.Stress) { s.Database = nil }, "Stress.Database is not set"},
		"no snapshot":  {good, func(s *inboxtest.Stress) { s.Snapshot = nil }, "Stress.Snapshot is not set"},
		"no consumer":  {inboxtest.Consumer{}, func(*inboxtest.Stress) {}, "Consumer.New is nil"},
		"blind":        {good, func(s *inboxtest.Stress) { s.Snapshot = inboxtest.Query(`SELECT 1 AS n`) }, "does not see what the handlers do"},
		"bad snapshot": {good, func(s *inboxtest.Stress) { s.Snapshot = inboxtest.Query(`SELECT x`) }, "Stress.Snapshot: SELECT x:"},
		"same event twice": {good, func(s *inboxtest.Stress) {
			s.Events[0].ID, s.Events[1].ID = "1", "1"
		}, "has the id 1 twice"},
		"ignored": {good, func(s *inboxtest.Stress) {
			s.Events = []event.Draft{reservedV1.New(reserved{"o-1"})}
		}, "1 events were ignored: the inbox has no handler"},
		"another pool": {inboxtest.Consumer{New: func(_ *pgxpool.Pool, from brokers.Subscriber) (*inbox.Inbox, error) {
			return good.New(own, from)
		}}, func(s *inboxtest.Stress) {
			s.Database = func(testing.TB) *pgxpool.Pool { return own }
			n := 0
			s.Snapshot = func(context.Context, *pgxpool.Pool) (string, error) { n++; return fmt.Sprint(n == 1), nil }
		}, "must use the pool that it is given"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stress(take(t))
			c.change(&s)
			require.Contains(t, failure(t, func(t testing.TB) { c.consumer.RequireIdempotent(t, s) }), c.want)
		})
	}
}

func TestAHandlerThatHangsIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	c := consumer(func(*pgxpool.Pool) handle {
		return func(ctx context.Context, _ pgx.Tx, _ inbox.Event[order]) error {
			<-ctx.Done()
			return ctx.Err()
		}
	})
	c.Timeout = 300 * time.Millisecond
	s := stress(emptied(t))
	text := failure(t, func(t testing.TB) { c.RequireIdempotent(t, s) })
	require.Contains(t, text, "1 deliveries are still not settled: does a handler hang")
}
