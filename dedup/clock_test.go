package dedup_test

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

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
		require.Eventually(t, func() bool { return (clock().Sub(time.Now()) - ahead).Abs() < time.Hour }, 20*time.Second, 10*time.Millisecond)
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
