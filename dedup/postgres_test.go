package dedup_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func database(t testing.TB, schema string) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, migrate.Inbox(schema).Up(t.Context(), conn.Conn()))
	return pool
}

// established registers a consumer as if it had been there for ever: otherwise
// old ids are claimed by the day of receipt.
func established(t testing.TB, pool *pgxpool.Pool, schema, consumer string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), fmt.Sprintf(`INSERT INTO %s.consumer (name, window_days, created_at) VALUES ($1, 7, '1960-01-01')`, schema), consumer)
	require.NoError(t, err)
}

func store(t testing.TB, pool *pgxpool.Pool, cfg dedup.Config) *dedup.Postgres {
	t.Helper()
	s, err := dedup.NewPostgres(t.Context(), pool, cfg)
	require.NoError(t, err)
	return s
}

// form is one of the two ways to claim: in a transaction that f's result ends.
type form func(ctx context.Context, s *dedup.Postgres, keys []dedup.Key, f func([]dedup.Result) error) error

func forms(pool *pgxpool.Pool) map[string]form {
	db := stdlib.OpenDBFromPool(pool)
	return map[string]form{
		"pgx.Tx": func(ctx context.Context, s *dedup.Postgres, keys []dedup.Key, f func([]dedup.Result) error) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				results, err := s.Claim(ctx, tx, keys...)
				if err != nil {
					return err
				}
				return f(results)
			})
		},
		"sql.Tx": func(ctx context.Context, s *dedup.Postgres, keys []dedup.Key, f func([]dedup.Result) error) error {
			tx, err := db.BeginTx(ctx, &sql.TxOptions{})
			if err != nil {
				return err
			}
			defer tx.Rollback() //nolint:errcheck // no-op after the commit
			results, err := s.ClaimSQL(ctx, tx, keys...)
			if err != nil {
				return err
			}
			if err := f(results); err != nil {
				return err
			}
			return tx.Commit()
		},
	}
}

func v7() string { return uuid.Must(uuid.NewV7()).String() }

func TestClaimIsPartOfTheTransaction(t *testing.T) {
	t.Parallel()
	pool := database(t, "shop_inbox")
	for name, claim := range forms(pool) {
		established(t, pool, "shop_inbox", name)
		s := store(t, pool, dedup.Config{Consumer: name, Schema: "shop_inbox"})
		keys := []dedup.Key{{Source: "/a", ID: "2"}, {Source: "/a", ID: v7()}, {Source: "/a", ID: "1"}, {Source: "/a", ID: "2"},
			{Source: "/a", ID: "018f0000-0000-7000-8000-000000000001"}}
		fresh := []dedup.Result{dedup.Claimed, dedup.Claimed, dedup.Claimed, dedup.Duplicate, dedup.OutsideWindow}
		again := []dedup.Result{dedup.Duplicate, dedup.Duplicate, dedup.Duplicate, dedup.Duplicate, dedup.OutsideWindow}
		for i, tt := range []struct {
			want []dedup.Result
			end  error
		}{{fresh, context.Canceled}, {fresh, nil}, {again, nil}} {
			err := claim(t.Context(), s, keys, func(got []dedup.Result) error {
				require.Equal(t, tt.want, got, "%s: round %d", name, i)
				return tt.end
			})
			require.ErrorIs(t, err, tt.end)
		}
	}
	other := store(t, pool, dedup.Config{Consumer: "other", Schema: "shop_inbox"})
	require.NoError(t, forms(pool)["pgx.Tx"](t.Context(), other, []dedup.Key{{Source: "/a", ID: "2"}}, func(got []dedup.Result) error {
		require.Equal(t, []dedup.Result{dedup.Claimed}, got, "another consumer")
		return nil
	}))
}

// One waits for the other, gets the answer that its end decides, and so do
// several that claim overlapping keys in different orders, without deadlock.
func TestConcurrentClaims(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	var keys []dedup.Key
	for i := range 10 {
		keys = append(keys, dedup.Key{Source: "/a", ID: v7()}, dedup.Key{Source: "/a", ID: fmt.Sprint(i)})
	}
	for name, claim := range forms(pool) {
		var mu sync.Mutex
		claimed := map[dedup.Key]int{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 25 {
					mine := append([]dedup.Key(nil), keys...)
					for i := range mine {
						mine[i].Source = "/" + name
					}
					rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
					mine = mine[:8]
					rollback := rand.IntN(3) > 0
					got := map[dedup.Key]bool{}
					err := claim(context.Background(), s, mine, func(results []dedup.Result) error {
						for i, r := range results {
							got[mine[i]] = r == dedup.Claimed
						}
						if rollback {
							return context.Canceled
						}
						return nil
					})
					if rollback {
						assert.ErrorIs(t, err, context.Canceled)
						continue
					}
					if !assert.NoError(t, err) {
						return
					}
					mu.Lock()
					for k, ok := range got {
						if ok {
							claimed[k]++
						}
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		require.Len(t, claimed, len(keys), name)
		for k, n := range claimed {
			require.Equal(t, 1, n, "%s: %v", name, k)
		}
	}
}

func TestV7KeysStayInOrderOfTime(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	id := v7()
	key := s.UUID(dedup.Key{Source: "/a", ID: id})
	require.Equal(t, id[:15], key.String()[:15], "48 bits of time, and the version")
	require.NotEqual(t, key, s.UUID(dedup.Key{Source: "/b", ID: id}), "identity is source and id")
	require.EqualValues(t, 8, s.UUID(dedup.Key{Source: "/a", ID: "1"}).Version())
	require.EqualValues(t, 8, s.UUID(dedup.Key{Source: "/a", ID: "{" + id + "}"}).Version(), "other text forms are other ids")
}

// A claim in one slot must not stand in the way of emptying another.
func TestSlotsAreIndependent(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := s.Claim(t.Context(), tx, dedup.Key{Source: "/a", ID: v7()})
		require.NoError(t, err)
		today := time.Now().Unix() / 86400 % 36
		_, err = pool.Exec(t.Context(), fmt.Sprintf(`SET lock_timeout = '2s'; TRUNCATE inbox.seen_%d`, (today+5)%36))
		require.NoError(t, err)
		return nil
	}))
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]dedup.Config{
		"Config.Consumer is empty":                   {},
		"Config.WindowDays 40: must be 1 to 31":      {Consumer: "c", WindowDays: 40},
		`Config.Schema "a-b": must be lower-case`:    {Consumer: "c", Schema: "a-b"},
		"Config.Consumer has 300 bytes: at most 200": {Consumer: string(make([]byte, 300))},
	} {
		_, err := dedup.NewPostgres(t.Context(), nil, cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := dedup.NewPostgres(t.Context(), pgtest.Pool(t), dedup.Config{Consumer: "c"})
	require.ErrorContains(t, err, "migrated and granted?")
}

// Two deliveries of a foreign id around midnight claim in different slots, whose
// primary key does not tell them apart: the lock does.
func TestForeignClaimsOnTwoDaysWaitForEachOther(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	key := dedup.Key{Source: "/a", ID: "1"}
	yesterday, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = s.Claim(t.Context(), yesterday, key)
	require.NoError(t, err)
	_, err = yesterday.Exec(t.Context(), `UPDATE inbox.seen_foreign SET slot = (slot + 35) % 36`)
	require.NoError(t, err)

	got := make(chan dedup.Result, 1)
	go func() {
		_ = pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
			results, err := s.Claim(context.Background(), tx, key)
			if err == nil {
				got <- results[0]
			}
			close(got)
			return err
		})
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	}, 10*time.Second, 3*time.Millisecond)
	require.NoError(t, yesterday.Commit(t.Context()))
	require.Equal(t, dedup.Duplicate, <-got)
}
