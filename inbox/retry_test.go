package inbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *lines) has(text string) bool { return l.count(text) > 0 }

// Errors that are not the handler's own are recognised by Config.Classify.
func TestClassify(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`CREATE TABLE stock (sku text PRIMARY KEY, qty int CHECK (qty >= 0))`)
	cfg := w.config("inventory")
	cfg.Attempts = 50
	cfg.Classify = func(err error) error {
		if pgErr := new(pgconn.PgError); errors.As(err, &pgErr) && strings.HasPrefix(pgErr.Code, "23") {
			return inbox.Permanent(err)
		}
		return err
	}
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		_, err := tx.Exec(ctx, `INSERT INTO stock VALUES ($1, $2)`, e.Key, e.Data.N)
		return err
	})
	w.publish(message("a", 1), message("b", -1), message("c", 2))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 2, Failures: 1, DeadLettered: 1}, in.Stats())
	rows := w.dead()
	require.Equal(t, "permanent", rows[0].Reason)
	require.Equal(t, 1, rows[0].Attempts)
	require.Contains(t, rows[0].Error, "stock_qty_check")
}

// A handler that ends its goroutine, as a test's FailNow does, is a failure like
// another.
func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Concurrency = 2
	w.publish(message("a", 1), message("b", 2), message("c", 3), message("d", 4))
	in := w.start(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Key == "a" || e.Key == "b" {
			runtime.Goexit()
		}
		return insert("inventory")(ctx, tx, e)
	})
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 2, Failures: 6, DeadLettered: 2}, in.Stats())
	require.Contains(t, w.dead()[0].Error, "runtime.Goexit")
}

// Handlers that ignore their contexts keep their keys, and neither workers nor
// connections: there are more of them than of either. What they have done in
// their transactions does not count, and Run says that they are still there.
func TestHandlersThatDoNotReturn(t *testing.T) {
	t.Parallel()
	for name, start := range handlerForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const stubborn = 9 // the pool has 8 connections
			w := newWorld(t)
			cfg := w.config("inventory")
			cfg.Concurrency, cfg.HandlerTimeout = stubborn, 50*time.Millisecond
			log := &lines{}
			cfg.Logger = log.logger()
			release := make(chan struct{})
			thaw := sync.OnceFunc(func() { close(release) })
			defer thaw()
			in := start(w, cfg, func(exec execFunc, e inbox.Event[order]) error {
				if e.Data.N == 0 {
					if err := exec(`INSERT INTO effect (key) VALUES ('stubborn')`); err != nil {
						return err
					}
					<-release
					return exec(`INSERT INTO effect (key) VALUES ('stubborn')`)
				}
				return exec(`INSERT INTO effect (key) VALUES ('good')`)
			})
			for n := range stubborn {
				w.publish(message(fmt.Sprint("k", n), 0), message(fmt.Sprint("k", n), 1))
			}
			for n := range 100 {
				w.publish(message(fmt.Sprint("good", n), 1))
			}
			eventually(t, "others to go on", func() bool { return w.count(`SELECT count(*) FROM effect WHERE key = 'good'`) == 100 })
			eventually(t, "their connections to be free", func() bool { return w.pool.Stat().AcquiredConns() == 0 })
			require.Equal(t, stubborn, log.count("ignores its context"))
			require.Zero(t, w.count(`SELECT count(*) FROM effect WHERE key = 'stubborn'`))

			in.stop()
			err := in.wait()
			require.ErrorContains(t, err, `the handler of "shop.order.placed" ignores its context`)
			require.Equal(t, stubborn, strings.Count(err.Error(), "ignores its context"))
			thaw()
			require.Zero(t, w.count(`SELECT count(*) FROM effect WHERE key = 'stubborn'`))
		})
	}
}
