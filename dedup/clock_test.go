package dedup_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/migrate"
)

// ownClock is a database of its own server, whose clock can be set.
func ownClock(t *testing.T) (*postgres.Server, *pgxpool.Pool) {
	var err error
	if runtime.GOOS == "linux" {
		err = postgres.ClockAvailable()
	}
	if runtime.GOOS != "linux" || err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal("OUTBOXKIT_REQUIRE_SERVICES=1 but a server's clock cannot be set: ", err)
		}
		t.Skip("a server's clock cannot be set: ", err)
	}
	server, err := postgres.Start(t.Context(), postgres.Config{Clock: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	pool, err := pgxpool.New(context.Background(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, migrate.Inbox("").Up(t.Context(), conn.Conn()))
	return server, pool
}

// The database's clock jumps ahead by days and back while claims and maintenance
// go on: nothing that was claimed is claimed again.
func TestNothingIsClaimedTwiceWhateverTheClock(t *testing.T) {
	t.Parallel()
	server, pool := ownClock(t)
	established(t, pool, "inbox", "c")
	s := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 3})
	var claimed []dedup.Key
	clock := func() time.Time { return scan[time.Time](t, pool, `SELECT clock_timestamp()`) }
	claimAll := func() (n int) {
		for i := range 3 * 24 {
			for _, key := range []dedup.Key{keyAt(time.Now().Add(-time.Duration(i) * time.Hour)), keyAt(clock()), foreignKey(keyAtNow().ID + "/")} {
				if claim(t, pool, s, key) == dedup.Claimed {
					claimed = append(claimed, key)
					n++
				}
			}
		}
		return n
	}
	for _, ahead := range []time.Duration{0, 2 * day, 0, 9 * day, 0, -4 * day, 0, 40 * day, 0} {
		require.NoError(t, server.SetClock(ahead))
		require.Eventually(t, func() bool { return (time.Until(clock()) - ahead).Abs() < time.Hour }, 20*time.Second, 10*time.Millisecond)
		pool.Reset() // each backend notices within a second; new ones at once
		n := claimAll()
		emptied := 0
		for range 3 {
			emptied += maintain(t, s)
		}
		t.Logf("clock %v ahead: %d claims, %d slots emptied", ahead, n, emptied)
		require.Positive(t, n)
		for _, key := range claimed {
			require.NotEqual(t, dedup.Claimed, claim(t, pool, s, key), "claimed twice: %v", key)
		}
	}
	require.NotEmpty(t, claimed)
}

// The database's clock says that everything is old, but the latest claim does not
// bear it out; so does an idle consumer, whose tables do not grow either.
func TestAClockAheadMakesNothingOld(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "c")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	now := time.Now()
	old := remember(t, pool, s, now.Add(-30*day))
	remember(t, pool, s, now.Add(-28*day))
	require.Zero(t, maintain(t, s))
	remember(t, pool, s, now.Add(-21*day))
	require.Equal(t, 1, maintain(t, s))
	require.False(t, remembered(t, pool, s, old))
}

// The transaction is days old, its claims are not: the statement's clock counts.
func TestSlowTransactionClaimsByTheStatementsClock(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "c")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	var end time.Time
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT now()`).Scan(&end))
	edge := keyAt(end.Add(-7*day + time.Second)) // in the window for a second more
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SELECT pg_sleep_until(to_timestamp($1))`, float64(end.Add(3*time.Second).Unix()))
		require.NoError(t, err)
		for name, way := range ways {
			got, err := way(t.Context(), tx, s, edge)
			require.NoError(t, err)
			require.Equal(t, dedup.OutsideWindow, got, name)
		}
		return nil
	}))
}

// A consumer that was not there yet cannot have handled it: however old the id,
// it is claimed once, by the day of receipt.
func TestNewConsumerClaimsOldIDs(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "new"})
	for _, age := range []time.Duration{0, 11 * time.Hour, 13 * time.Hour, 6 * day, 8 * day, 400 * day} {
		key := keyAt(time.Now().Add(-age))
		require.Equal(t, dedup.Claimed, claim(t, pool, s, key), age)
		require.Equal(t, dedup.Duplicate, claim(t, pool, s, key), age)
		again := store(t, pool, dedup.Config{Consumer: "new"}) // another process
		require.Equal(t, dedup.Duplicate, claim(t, pool, again, key), age)
	}
	require.Equal(t, 4, scan[int](t, pool, `SELECT count(*) FROM inbox.seen_foreign`))
	exec(t, pool, fmt.Sprintf(`UPDATE inbox.consumer SET created_at = '%s'`, time.Now().Add(-500*day).Format(time.RFC3339)))
	require.Equal(t, dedup.OutsideWindow, claim(t, pool, store(t, pool, dedup.Config{Consumer: "new"}), keyAt(time.Now().Add(-8*day))))
}
