package dedup_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/dedup/deduptest"
)

// many is a pool with a connection for each caller of the suite.
func many(t testing.TB, concurrent dedup.Concurrent) (*pgxpool.Pool, *dedup.Postgres) {
	t.Helper()
	cfg := database(t, "").Config().Copy()
	cfg.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool, store(t, pool, dedup.Config{Consumer: "commands", Concurrent: concurrent})
}

func TestPostgresIn(t *testing.T) {
	t.Parallel()
	deduptest.Run(t, func(t testing.TB, concurrent dedup.Concurrent) deduptest.Begin {
		pool, s := many(t, concurrent)
		return func(ctx context.Context) (dedup.Store, func(bool) error, error) {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return nil, nil, err
			}
			return s.In(tx), func(commit bool) error {
				if commit {
					return tx.Commit(context.Background())
				}
				return tx.Rollback(context.Background())
			}, nil
		}
	})
}

func TestPostgresInSQL(t *testing.T) {
	t.Parallel()
	deduptest.Run(t, func(t testing.TB, concurrent dedup.Concurrent) deduptest.Begin {
		pool, s := many(t, concurrent)
		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return func(context.Context) (dedup.Store, func(bool) error, error) {
			tx, err := db.BeginTx(context.Background(), nil) // with the caller's, a cancelled call would end it
			if err != nil {
				return nil, nil, err
			}
			return s.InSQL(tx), func(commit bool) error {
				if commit {
					return tx.Commit()
				}
				return tx.Rollback()
			}, nil
		}
	})
}

var errBroken = errors.New("broken")

// The transaction goes on after a call that failed, without what the call did,
// and what follows commits.
func TestAFailedCallIsUndoneInItsTransaction(t *testing.T) {
	t.Parallel()
	pool, s := many(t, dedup.Wait)
	exec(t, pool, `CREATE TABLE effect (what text)`)
	insert := func(tx pgx.Tx, what string) {
		_, err := tx.Exec(t.Context(), `INSERT INTO effect VALUES ($1)`, what)
		require.NoError(t, err)
	}
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		insert(tx, "before")
		_, err := s.In(tx).Once(t.Context(), foreignKey(1), func(context.Context) ([]byte, error) {
			insert(tx, "failed")
			return nil, errBroken
		})
		require.ErrorIs(t, err, errBroken)
		_, err = s.In(tx).Once(t.Context(), foreignKey(2), func(ctx context.Context) ([]byte, error) {
			_, err := tx.Exec(ctx, `SELECT 1/0`) // would poison the transaction
			return nil, err
		})
		require.ErrorContains(t, err, "division by zero")
		func() {
			defer func() { require.Equal(t, "on purpose", recover()) }()
			_, _ = s.In(tx).Once(t.Context(), foreignKey(3), func(context.Context) ([]byte, error) {
				insert(tx, "panicked")
				panic("on purpose")
			})
		}()
		_, err = s.In(tx).Once(t.Context(), foreignKey(4), func(ctx context.Context) ([]byte, error) {
			insert(tx, "done")
			_, err := s.In(tx).Once(ctx, foreignKey(5), func(context.Context) ([]byte, error) {
				insert(tx, "nested")
				return nil, nil
			})
			return nil, err
		})
		return err
	}))
	require.Equal(t, "before done nested", scan[string](t, pool, `SELECT string_agg(what, ' ' ORDER BY what) FROM effect`))
	require.Equal(t, 2, scan[int](t, pool, `SELECT count(*) FROM inbox.seen_foreign`))
}

// In a transaction with a snapshot of its own, what has just been handled would
// not be seen.
func TestOnceRefusesOtherIsolations(t *testing.T) {
	t.Parallel()
	pool, s := many(t, dedup.Wait)
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
			_, err := s.In(tx).Once(t.Context(), foreignKey(1), func(context.Context) ([]byte, error) { return nil, nil })
			return err
		})
		require.ErrorContains(t, err, "the transaction is "+string(level)+": must be read committed")
	}
}

// Once and Claim know of each other's keys, and responses outlive the turns of the
// window.
func TestOnceThroughTheTurns(t *testing.T) {
	t.Parallel()
	pool, s := many(t, dedup.Wait)
	asleep := store(t, pool, dedup.Config{Consumer: "commands"})
	once := func(s *dedup.Postgres, id any) (answer dedup.Answer) {
		require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
			answer, err = s.In(tx).Once(t.Context(), foreignKey(id), func(context.Context) ([]byte, error) { return []byte("new"), nil })
			return err
		}))
		return answer
	}
	require.False(t, once(s, 1).Duplicate)
	require.Equal(t, dedup.Duplicate, claim(t, pool, s, foreignKey(1)))
	require.Equal(t, dedup.Claimed, claim(t, pool, s, foreignKey(2)))
	require.Equal(t, dedup.Answer{Duplicate: true}, once(s, 2))
	for range 9 {
		turn(t, pool, s)
		require.Equal(t, dedup.Answer{Response: []byte("new"), Duplicate: true}, once(s, 1))
	}
	require.True(t, once(asleep, 1).Duplicate, "nine turns later")
	turn(t, pool, s)
	require.False(t, once(s, 3).Duplicate)
	require.True(t, once(asleep, 3).Duplicate, "in the slot that has just become the current one")
	require.False(t, once(s, 1).Duplicate, "past the window")
}

func TestStoreConfigErrors(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]dedup.MemoryConfig{
		"MemoryConfig.MaxEntries -1 is negative": {MaxEntries: -1},
		"MemoryConfig.TTL -1s is negative":       {TTL: -1e9},
		"MemoryConfig.Concurrent Concurrent(2)":  {Concurrent: 2},
	} {
		_, err := dedup.NewMemory(cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := dedup.NewPostgres(t.Context(), nil, dedup.Config{Consumer: "c", Concurrent: 7})
	require.ErrorContains(t, err, "Config.Concurrent Concurrent(7): must be Wait or Conflict")
	require.Equal(t, "wait conflict", strings.Join([]string{dedup.Wait.String(), dedup.Conflict.String()}, " "))
}
