package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// The primary of a synchronous standby dies while writers write, and the standby is
// promoted. Whatever was acknowledged to a writer is published, in order, and
// nothing that was published is forgotten: a transaction is visible, to the relay
// too, only when the standby has it. Writers and relay find the new primary by
// themselves, as a connection string with both hosts lets them.
func TestFailoverToASynchronousStandby(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary := pgtest.Own(t)
	db := migrated(t, primary.URL("postgres"))
	db.exec(t, `CREATE TABLE counter (key text PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO counter SELECT 'key' || g FROM generate_series(0, 39) g;
GRANT SELECT, UPDATE ON counter TO outbox_writer`)
	standby, err := primary.Standby(ctx, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close(context.Background())) })
	require.NoError(t, standby.CatchUp(ctx, primary))
	synchronous(t, db)

	both := func(user string) *pgxpool.Pool {
		pool, err := pgxpool.New(context.Background(), fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=%s dbname=postgres sslmode=disable target_session_attrs=read-write",
			primary.Port(), standby.Port(), user))
		require.NoError(t, err)
		t.Cleanup(func() { go pool.Close() })
		return pool
	}
	got := &history{}
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		got.add(msgs)
		return make([]error, len(msgs))
	}}
	cfg := config(p)
	cfg.Lease = time.Second
	r := newRelay(t, both("outbox_relay"), cfg)
	r.tune.pageRows, r.tune.split = 50, 10
	stop := running(t, r)
	w := &ackedWriters{pool: both("outbox_writer"), acked: map[string]int{}}
	stopWriting := w.run()

	eventually(t, func() bool { return w.count.Load() > 1000 }, "at work")
	require.NoError(t, primary.Kill())
	before := w.count.Load()
	require.NoError(t, standby.Promote(ctx))
	eventually(t, func() bool { return w.count.Load() > before+1000 }, "goes on")
	stopWriting()

	after := opened(t, standby.URL("postgres"))
	want := after.want(t)
	for key, n := range w.acked {
		require.GreaterOrEqual(t, want[key], n, "%s: acknowledged and forgotten", key)
	}
	eventually(t, func() bool { return got.missing(want) == 0 }, "all published")
	require.NoError(t, stop())
	require.Empty(t, got.violations(want, false)) // also finds what was published and forgotten
	t.Logf("%d transactions acknowledged before the failover, %d in all; %d failed", before, w.count.Load(), w.failed.Load())
}

// synchronous makes commits wait for the standby, and returns when they do.
func synchronous(t *testing.T, db *database) {
	db.exec(t, `ALTER SYSTEM SET synchronous_standby_names = '*'`)
	db.exec(t, `SELECT pg_reload_conf()`)
	eventually(t, func() bool {
		return scan[bool](t, db.admin, `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')`)
	}, "synchronous")
	require.Equal(t, "on", scan[string](t, db.writer, `SHOW synchronous_commit`))
}

// ackedWriters remember what the database has acknowledged.
type ackedWriters struct {
	pool          *pgxpool.Pool
	count, failed atomic.Int64

	mu    sync.Mutex
	acked map[string]int // key's counter
}

func (w *ackedWriters) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if err := w.write(); err != nil {
					w.failed.Add(1)
					<-time.After(5 * time.Millisecond)
				}
			}
		})
	}
	return func() { cancel(); writers.Wait() }
}

func (w *ackedWriters) write() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	key := rand.IntN(40)
	name := fmt.Sprint("key", key)
	var n int
	if err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if err := bump(ctx, tx, "key", key, 1+rand.IntN(3)); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT n FROM counter WHERE key = $1`, name).Scan(&n)
	}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[name] = max(w.acked[name], n)
	w.count.Add(1)
	return nil
}
