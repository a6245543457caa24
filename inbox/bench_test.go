package inbox_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/inbox"
)

// feed delivers messages as fast as they are taken.
type feed struct {
	messages []brokers.Message
	left     atomic.Int64
	done     chan struct{}
}

func (f *feed) Close() error { return nil }
func (f *feed) Release()     {}
func (f *feed) Ack() error {
	if f.left.Add(-1) == 0 {
		close(f.done)
	}
	return nil
}

func (f *feed) Subscribe(ctx context.Context, handle brokers.Handle) error {
	for _, m := range f.messages {
		handle(ctx, &brokers.Delivery{Message: m, Settler: f})
	}
	<-ctx.Done()
	return nil
}

func benchWorld(b *testing.B) (*world, *pgxpool.Pool) {
	w := newWorld(b)
	cfg := w.pool.Config().Copy()
	cfg.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return w, pool
}

const benchInsert = `INSERT INTO effect (consumer, id, key, n) VALUES ($1, $2, $3, $4)`

// BenchmarkInbox handles messages with one business INSERT each, 16 at a time.
func BenchmarkInbox(b *testing.B) {
	w, pool := benchWorld(b)
	f := &feed{done: make(chan struct{})}
	for n := range b.N {
		f.messages = append(f.messages, message(fmt.Sprint("key", n%10_000), n))
	}
	f.left.Store(int64(b.N))
	cfg := w.config("inventory")
	cfg.From = f
	in, err := inbox.New(pool, cfg)
	require.NoError(b, err)
	inbox.On(in, placed, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		_, err := tx.Exec(ctx, benchInsert, "inventory", e.ID, e.Key, e.Data.N)
		return err
	})
	ctx, cancel := context.WithCancel(b.Context())
	b.ResetTimer()
	finished := make(chan error, 1)
	go func() { finished <- in.Run(ctx) }()
	<-f.done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	cancel()
	require.NoError(b, <-finished)
	require.EqualValues(b, b.N, in.Stats().Handled)
}

// BenchmarkBare is the reference: the same claim and INSERT in a bare pgx loop.
func BenchmarkBare(b *testing.B) {
	_, pool := benchWorld(b)
	store, err := dedup.NewPostgres(b.Context(), pool, dedup.Config{Consumer: "inventory"})
	require.NoError(b, err)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 16 {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := bare(b.Context(), pool, store, n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func bare(ctx context.Context, pool *pgxpool.Pool, store *dedup.Postgres, n int64) error {
	batch := &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{})
	id := uuid.Must(uuid.NewV7()).String()
	var result dedup.Result
	store.Queue(batch, dedup.Key{Source: source, ID: id}, &result)
	results := pool.SendBatch(ctx, batch)
	err := results.Close()
	tx := results.Tx()
	defer tx.Rollback(ctx) //nolint:errcheck // no-op after the commit
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, benchInsert, "inventory", id, fmt.Sprint("key", n%10_000), n); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
