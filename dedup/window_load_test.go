package dedup_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
)

// claimer claims new keys at full speed: of today, of the whole window, from
// outside of it (in the slots that are being emptied) and foreign ones.
type claimer struct {
	claimed []dedup.Key
	longest time.Duration
}

func (c *claimer) run(ctx context.Context, pool *pgxpool.Pool, s *dedup.Postgres, who int) error {
	for n := 0; ctx.Err() == nil; n++ {
		keys := []dedup.Key{
			keyAtNow(), keyAt(time.Now().Add(-time.Duration(n%6) * day)), foreignKey(fmt.Sprint(who, "/", n)),
			keyAt(time.Now().Add(-time.Duration(8+n%20) * day)),
		}
		began := time.Now()
		err := pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
			results, err := s.Claim(context.Background(), tx, keys...)
			if err == nil && fmt.Sprint(results) != "[claimed claimed claimed outside window]" {
				err = fmt.Errorf("claims of new keys: %v", results)
			}
			return err
		})
		c.longest = max(c.longest, time.Since(began))
		if err != nil {
			return err
		}
		c.claimed = append(c.claimed, keys[:3]...)
	}
	return nil
}

// Slots of both kinds are emptied again and again while claims go on at full
// speed, some of them long: nothing waits for a table's lock, nothing deadlocks,
// no claim of the window is lost. Negative control: without NOWAIT a queue is seen.
func TestSlotsAreEmptiedUnderLoad(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"kept": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := database(t, "")
			established(t, pool, "inbox", "c")
			l := &claimLoad{pool: connections(t, pool, 12), s: store(t, pool, dedup.Config{Consumer: "c"})}
			if broken {
				control(t, pool, "forget_seen", " NOWAIT", "")
				control(t, pool, "forget_foreign", " NOWAIT", "")
			}
			var quiet claimer // the same without maintenance, to compare
			alone, enough := context.WithTimeout(t.Context(), time.Second)
			require.NoError(t, quiet.run(alone, pool, l.s, -1))
			enough()
			stop := l.start(t)
			deadline := time.Now().Add(3 * time.Minute)
			for time.Now().Before(deadline) && (broken && l.queued == 0 || !broken && (l.emptied < 100 || turns(t, pool) < 5)) {
				l.round(t)
			}
			stop()
			if broken {
				require.Positive(t, l.queued)
				return
			}
			require.Zero(t, l.queued, "requests for a table's lock that waited")
			require.GreaterOrEqual(t, l.emptied, 100)
			claims, longest := l.remembered(t)
			t.Logf("%d claims while %d slots were emptied: longest transaction %v (one alone without that: %v), longest maintenance %v",
				claims, l.emptied, longest, quiet.longest, l.longest)
		})
	}
}

// claimLoad is claims at full speed, and maintenance in rounds.
type claimLoad struct {
	pool     *pgxpool.Pool
	s        *dedup.Postgres
	claimers [8]claimer

	queued, emptied int           // lock requests that were seen to wait; slots
	longest         time.Duration // maintenance
}

func connections(t testing.TB, pool *pgxpool.Pool, n int32) *pgxpool.Pool {
	cfg := pool.Config().Copy()
	cfg.MaxConns = n
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (l *claimLoad) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for i := range l.claimers {
		workers.Go(func() { assert.NoError(t, l.claimers[i].run(ctx, l.pool, l.s, i)) })
	}
	workers.Go(func() { // long transactions, with claims in the slots that are being emptied
		for ctx.Err() == nil {
			assert.NoError(t, pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) error {
				if _, err := l.s.Claim(context.Background(), tx, keyAtNow(), keyAt(time.Now().Add(-15*day)), foreignKey("long "+keyAtNow().ID)); err != nil {
					return err
				}
				_, err := tx.Exec(context.Background(), `SELECT pg_sleep(0.05)`)
				return err
			}))
		}
	})
	stop = sync.OnceFunc(func() { cancel(); workers.Wait() })
	t.Cleanup(stop)
	return stop
}

// round fills the slots that may be emptied, and has them emptied.
func (l *claimLoad) round(t *testing.T) {
	age(t, l.pool, l.s)
	turned := turns(t, l.pool)
	var due []string // where claims from outside the window may wait while TRUNCATE is at work
	for n := 8; n <= 34; n++ {
		due = append(due, fmt.Sprintf("inbox.seen_%d", slotOf(time.Now().Add(-time.Duration(n)*day))))
		if n >= 10 {
			due = append(due, fmt.Sprintf("inbox.seen_foreign_%d", (turned+36-n)%36))
		}
	}
	if turned < 9 { // further, and the first claims may be forgotten
		exec(t, l.pool, `UPDATE inbox.retention SET turned_at = turned_at - interval '25 hours'`)
	}
	began := time.Now()
	done := make(chan int, 1)
	go func() {
		n, err := l.s.Maintain(context.Background())
		assert.NoError(t, err)
		done <- n
	}()
	for {
		select {
		case n := <-done:
			l.emptied += n
			l.longest = max(l.longest, time.Since(began))
			return
		default:
			l.queued += scan[int](t, l.pool, queuedSQL, due)
		}
	}
}

// remembered checks that all that was claimed is in the tables, and returns how
// much that is, and how long the longest transaction took.
func (l *claimLoad) remembered(t *testing.T) (claims int, longest time.Duration) {
	for _, c := range l.claimers {
		ids := make([]uuid.UUID, len(c.claimed))
		for i, key := range c.claimed {
			ids[i] = l.s.UUID(key)
		}
		require.Equal(t, len(ids), scan[int](t, l.pool, `SELECT (SELECT count(*) FROM inbox.seen WHERE event_key = ANY($1))
			+ (SELECT count(*) FROM inbox.seen_foreign WHERE event_key = ANY($1))`, ids), "claims that are remembered")
		claims += len(ids)
		longest = max(longest, c.longest)
	}
	require.Positive(t, claims)
	return claims, longest
}

// queuedSQL counts the waiting requests of truncations, and of claims that have
// nothing to do with what is being truncated.
const queuedSQL = `SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (mode = 'AccessExclusiveLock' OR relation <> ALL (SELECT unnest($1::text[])::regclass))`

// age fills every slot that may be emptied as if its time had come round.
func age(t *testing.T, pool *pgxpool.Pool, s *dedup.Postgres) {
	batch := &pgx.Batch{}
	for n := 9; n < 34; n++ {
		at := time.Now().Add(-time.Duration(n) * day)
		batch.Queue(`INSERT INTO inbox.seen (slot, consumer, event_key) VALUES ($1, $2, $3)`, slotOf(at), s.ConsumerID(), s.UUID(keyAt(at)))
		batch.Queue(`INSERT INTO inbox.seen_foreign (slot, consumer, event_key) SELECT (foreign_turn + 36 - $1) % 36, $2, gen_random_uuid() FROM inbox.retention WHERE $1 >= 10`,
			n, s.ConsumerID())
	}
	require.NoError(t, pool.SendBatch(t.Context(), batch).Close())
}
