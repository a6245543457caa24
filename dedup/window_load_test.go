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
			cfg := pool.Config().Copy()
			cfg.MaxConns = 12
			pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			established(t, pool, "inbox", "c")
			s := store(t, pool, dedup.Config{Consumer: "c"})
			if broken {
				control(t, pool, "forget_seen", " NOWAIT", "")
				control(t, pool, "forget_foreign", " NOWAIT", "")
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var workers sync.WaitGroup
			quiet := claimer{} // the same without maintenance, to compare
			alone, enough := context.WithTimeout(ctx, 2*time.Second)
			assert.NoError(t, quiet.run(alone, pool, s, -1))
			enough()
			claimers := make([]claimer, 8)
			for i := range claimers {
				workers.Go(func() { assert.NoError(t, claimers[i].run(ctx, pool, s, i)) })
			}
			workers.Go(func() { // a long transaction, with claims in the slots that are being emptied
				for ctx.Err() == nil {
					assert.NoError(t, pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
						if _, err := s.Claim(context.Background(), tx, keyAtNow(), keyAt(time.Now().Add(-15*day)), foreignKey("long "+keyAtNow().ID)); err != nil {
							return err
						}
						_, err := tx.Exec(context.Background(), `SELECT pg_sleep(0.05)`)
						return err
					}))
				}
			})

			queued, emptied := 0, 0
			var longest time.Duration
			deadline := time.Now().Add(time.Minute)
			for turned := 0; (broken && queued == 0 || !broken && (emptied < 100 || turned < 5)) && time.Now().Before(deadline); {
				age(t, pool, s)
				turned = turns(t, pool)
				var due []string // where claims from outside the window may wait while TRUNCATE is at work
				for n := 8; n <= 34; n++ {
					due = append(due, fmt.Sprintf("inbox.seen_%d", slotOf(time.Now().Add(-time.Duration(n)*day))))
					if n >= 10 {
						due = append(due, fmt.Sprintf("inbox.seen_foreign_%d", (turned+36-n)%36))
					}
				}
				if turned < 9 { // further, and the first claims may be forgotten
					exec(t, pool, `UPDATE inbox.retention SET turned_at = turned_at - interval '25 hours'`)
				}
				done := make(chan int, 1)
				began := time.Now()
				go func() {
					n, err := s.Maintain(context.Background())
					assert.NoError(t, err)
					done <- n
				}()
				for finished := false; !finished; {
					select {
					case n := <-done:
						emptied += n
						finished = true
					default:
						queued += scan[int](t, pool, queuedSQL, due)
					}
				}
				longest = max(longest, time.Since(began))
			}
			stop()
			workers.Wait()
			if broken {
				require.Positive(t, queued)
				return
			}
			require.Zero(t, queued, "requests for a table's lock that waited")
			require.GreaterOrEqual(t, emptied, 100)
			claims, stall := 0, time.Duration(0)
			for _, c := range claimers {
				claims += len(c.claimed)
				stall = max(stall, c.longest)
			}
			t.Logf("%d claims while %d slots were emptied: longest transaction %v (one alone without that: %v), longest maintenance %v",
				claims, emptied, stall, quiet.longest, longest)
			require.Positive(t, claims)
			for _, c := range claimers {
				ids := make([]uuid.UUID, len(c.claimed))
				for i, key := range c.claimed {
					ids[i] = s.UUID(key)
				}
				require.Equal(t, len(ids), scan[int](t, pool, `SELECT (SELECT count(*) FROM inbox.seen WHERE event_key = ANY($1))
					+ (SELECT count(*) FROM inbox.seen_foreign WHERE event_key = ANY($1))`, ids), "claims that are remembered")
			}
		})
	}
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
