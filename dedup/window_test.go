package dedup_test

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/dedup"
)

const day = 24 * time.Hour

// keyAt has a UUIDv7 of another time than now.
func keyAt(at time.Time) dedup.Key {
	id := uuid.Must(uuid.NewV7())
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(at.UnixMilli())<<16) //nolint:gosec // after 1970
	copy(id[:6], b[:6])
	return dedup.Key{Source: "/a", ID: id.String()}
}

func keyAtNow() dedup.Key { return keyAt(time.Now()) }

func slotOf(at time.Time) int { return int(at.Unix() / 86400 % 36) }

// claim claims in a transaction of its own.
func claim(t testing.TB, pool *pgxpool.Pool, s *dedup.Postgres, key dedup.Key) dedup.Result {
	t.Helper()
	var results []dedup.Result
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
		results, err = s.Claim(t.Context(), tx, key)
		return err
	}))
	return results[0]
}

// ways are the statements that claim one key.
var ways = map[string]func(ctx context.Context, tx pgx.Tx, s *dedup.Postgres, key dedup.Key) (dedup.Result, error){
	"Claim": func(ctx context.Context, tx pgx.Tx, s *dedup.Postgres, key dedup.Key) (dedup.Result, error) {
		results, err := s.Claim(ctx, tx, key)
		if err != nil {
			return 0, err
		}
		return results[0], nil
	},
	"Queue": func(ctx context.Context, tx pgx.Tx, s *dedup.Postgres, key dedup.Key) (result dedup.Result, err error) {
		b := &pgx.Batch{}
		s.Queue(b, key, &result)
		return result, tx.SendBatch(ctx, b).Close()
	},
}

// eachWay claims in each way, each time in a transaction that rolls back, and
// wants the same result.
func eachWay(t testing.TB, pool *pgxpool.Pool, s *dedup.Postgres, want dedup.Result, key dedup.Key) {
	t.Helper()
	for name, way := range ways {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		got, err := way(t.Context(), tx, s, key)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// remember puts a claim into seen that was made in the past.
func remember(t testing.TB, db interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, s *dedup.Postgres, at time.Time,
) dedup.Key {
	t.Helper()
	key := keyAt(at)
	_, err := db.Exec(t.Context(), `INSERT INTO inbox.seen (slot, consumer, event_key) VALUES ($1, $2, $3)`, slotOf(at), s.ConsumerID(), s.UUID(key))
	require.NoError(t, err)
	return key
}

func scan[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

func exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func maintain(t testing.TB, s *dedup.Postgres) int {
	t.Helper()
	n, err := s.Maintain(t.Context())
	require.NoError(t, err)
	return n
}

func remembered(t testing.TB, pool *pgxpool.Pool, s *dedup.Postgres, key dedup.Key) bool {
	return scan[bool](t, pool, `SELECT EXISTS (SELECT FROM inbox.seen WHERE event_key = $1)`, s.UUID(key))
}

// A slot goes two days past the widest window of all consumers, unless something
// newer shares it.
func TestSlotsAreEmptiedTwoDaysPastTheWindow(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "wide")
	established(t, pool, "inbox", "narrow")
	s := store(t, pool, dedup.Config{Consumer: "wide", WindowDays: 5})
	store(t, pool, dedup.Config{Consumer: "narrow", WindowDays: 1})
	now := time.Now()
	fresh := remember(t, pool, s, now)
	past := map[int]dedup.Key{}
	for n := 5; n <= 9; n++ {
		past[n] = remember(t, pool, s, now.Add(-time.Duration(n)*day))
	}
	shared := remember(t, pool, s, now.Add(-36*day)) // today's slot, one round ago
	require.Equal(t, 3, maintain(t, s), "7, 8 and 9 days old")
	require.Zero(t, maintain(t, s))
	for n, key := range past {
		require.Equal(t, n < 7, remembered(t, pool, s, key), "%d days old", n)
	}
	require.True(t, remembered(t, pool, s, shared))
	eachWay(t, pool, s, dedup.Duplicate, fresh)
	eachWay(t, pool, s, dedup.Duplicate, past[6]) // outside the window, but known
	eachWay(t, pool, s, dedup.OutsideWindow, past[8])
}

// What has been truncated is not claimed again, although the window is widened
// later, or the clock set back: nobody can tell any more.
func TestForgottenIsNotClaimedAgain(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "c")
	s := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 1})
	now := time.Now()
	remember(t, pool, s, now)
	old := remember(t, pool, s, now.Add(-5*day))
	require.Equal(t, 1, maintain(t, s))
	wide := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 20})
	eachWay(t, pool, wide, dedup.OutsideWindow, old)
	eachWay(t, pool, wide, dedup.OutsideWindow, keyAt(now.Add(-6*day)))
	eachWay(t, pool, wide, dedup.Claimed, keyAt(now.Add(-5*day+2*time.Second))) // newer than all that was forgotten
}

// A claim that waits for its leaf while it is truncated learns of it.
func TestClaimBehindATruncationLearnsOfIt(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := database(t, "")
			established(t, pool, "inbox", "c")
			s := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 1})
			now := time.Now()
			remember(t, pool, s, now)
			old := remember(t, pool, s, now.Add(-5*day))
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			var done bool
			require.NoError(t, tx.QueryRow(t.Context(), `SELECT inbox.forget_seen($1)`, slotOf(now.Add(-5*day))).Scan(&done))
			require.True(t, done)
			// In the window of a consumer that has just been started with a wider one.
			wide := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 20})
			var g errgroup.Group
			var got dedup.Result
			g.Go(func() error {
				return pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) (err error) {
					got, err = way(context.Background(), tx, wide, old)
					return err
				})
			})
			waitsForLock(t, pool, 1)
			require.NoError(t, tx.Commit(t.Context()))
			require.NoError(t, g.Wait())
			require.Equal(t, dedup.OutsideWindow, got)
		})
	}
}

func waitsForLock(t testing.TB, pool *pgxpool.Pool, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return scan[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
	}, 20*time.Second, 3*time.Millisecond)
}

// control changes a function of the schema as somebody might by mistake.
func control(t *testing.T, pool *pgxpool.Pool, function string, oldnew ...string) {
	t.Helper()
	def := scan[string](t, pool, `SELECT pg_get_functiondef(('inbox.' || $1)::regproc)`, function)
	changed := strings.NewReplacer(oldnew...).Replace(def)
	require.NotEqual(t, def, changed)
	exec(t, pool, changed)
}

// A claim is open in the slot: truncation does not queue behind it, and keeps what
// it commits. Negative control: waiting, and not looking again, loses it.
func TestTruncationLooksUnderTheLock(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"kept": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := database(t, "")
			established(t, pool, "inbox", "c")
			s := store(t, pool, dedup.Config{Consumer: "c"})
			now := time.Now()
			remember(t, pool, s, now)
			remember(t, pool, s, now.Add(-35*day)) // the slot that tomorrow's ids take
			if broken {
				control(t, pool, "forget_seen", " NOWAIT", "", "1..2", "1..1")
			}
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			slow := remember(t, tx, s, now.Add(day))
			done := make(chan int, 1)
			go func() {
				n, _ := s.Maintain(context.Background())
				done <- n
			}()
			if broken {
				waitsForLock(t, pool, 1)
			} else {
				require.Zero(t, <-done)
			}
			require.NoError(t, tx.Commit(t.Context()))
			if broken {
				require.Equal(t, 1, <-done)
				require.False(t, remembered(t, pool, s, slow), "the control must lose it")
				return
			}
			require.Zero(t, maintain(t, s))
			require.True(t, remembered(t, pool, s, slow))
		})
	}
}

// Many look after the same slots: one does at a time, nobody waits or fails.
func TestManyMaintainAtOnce(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "c")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	now := time.Now()
	remember(t, pool, s, now)
	for n := 9; n < 35; n++ {
		remember(t, pool, s, now.Add(-time.Duration(n)*day))
	}
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			_, err := s.Maintain(context.Background())
			return err
		})
	}
	require.NoError(t, g.Wait())
	for range 3 { // what one skipped because another was at it
		maintain(t, s)
	}
	require.Equal(t, 1, scan[int](t, pool, `SELECT count(*) FROM inbox.seen`))
}
