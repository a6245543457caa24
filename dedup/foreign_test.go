package dedup_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
)

func foreignKey(id any) dedup.Key { return dedup.Key{Source: "/a", ID: fmt.Sprint(id)} }

// turn lets a day pass for foreign claims, and returns how many slots were emptied
// after it.
func turn(t testing.TB, pool *pgxpool.Pool, s *dedup.Postgres) int {
	t.Helper()
	before := turns(t, pool)
	exec(t, pool, `UPDATE inbox.retention SET turned_at = turned_at - interval '25 hours'`)
	require.Zero(t, maintain(t, s), "all that was due is gone")
	require.Equal(t, before+1, turns(t, pool))
	return maintain(t, s)
}

func turns(t testing.TB, pool *pgxpool.Pool) int {
	return scan[int](t, pool, `SELECT foreign_turn FROM inbox.retention`)
}

// Foreign ids are remembered for the window and a turn more, through every turn
// of the slots, and then forgotten.
func TestForeignClaimsLastForTheWindow(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 3})
	for n := range 80 { // more than two rounds
		require.Equal(t, dedup.Claimed, claim(t, pool, s, foreignKey(n)))
		for age := range min(n, 3+2) + 1 {
			require.Equal(t, dedup.Duplicate, claim(t, pool, s, foreignKey(n-age)), "%d turns old", age)
		}
		emptied := turn(t, pool, s)
		if n >= 3+2 {
			require.Equal(t, 1, emptied)
			require.Equal(t, 3+2, scan[int](t, pool, `SELECT count(*) FROM inbox.seen_foreign`))
		}
	}
}

// The widest window decides what is kept, a consumer's own how far it looks.
func TestForeignClaimsOfTheWidestWindowAreKept(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	narrow := store(t, pool, dedup.Config{Consumer: "narrow", WindowDays: 1})
	wide := store(t, pool, dedup.Config{Consumer: "wide", WindowDays: 31})
	require.Equal(t, dedup.Claimed, claim(t, pool, wide, foreignKey(1)))
	for range 33 {
		require.Zero(t, turn(t, pool, narrow))
		require.Equal(t, dedup.Duplicate, claim(t, pool, wide, foreignKey(1)))
	}
	require.Equal(t, 1, turn(t, pool, narrow))
}

// No turn onto a slot that could not be emptied: the current one grows, and
// nothing is forgotten.
func TestNoTurnOntoAFullSlot(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 31})
	require.Equal(t, dedup.Claimed, claim(t, pool, s, foreignKey(1)))
	tx, err := pool.Begin(t.Context()) // somebody reads it, for ever
	require.NoError(t, err)
	defer tx.Rollback(t.Context()) //nolint:errcheck // after the commit
	_, err = tx.Exec(t.Context(), `SELECT FROM inbox.seen_foreign_0`)
	require.NoError(t, err)
	for turns(t, pool) < 34 {
		turn(t, pool, s)
	}
	exec(t, pool, `UPDATE inbox.retention SET turned_at = turned_at - interval '25 hours'`)
	require.Zero(t, maintain(t, s))
	require.Equal(t, 34, turns(t, pool))
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 1, maintain(t, s))
	require.Equal(t, 35, turns(t, pool))
}

// A process that last claimed many turns ago looks where it has to all the same,
// in each form of claiming.
func TestClaimAfterManyTurns(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	for name, claimForm := range forms(pool) {
		for _, missed := range []int{1, 2, 5, 36, 37} {
			asleep := store(t, pool, dedup.Config{Consumer: "c"})
			keys := []dedup.Key{foreignKey(fmt.Sprint(name, missed, "a")), foreignKey(fmt.Sprint(name, missed, "b")), keyAtNow()}
			for range missed {
				turn(t, pool, s)
			}
			require.Equal(t, dedup.Claimed, claim(t, pool, s, keys[0]))
			require.NoError(t, claimForm(t.Context(), asleep, keys, func(got []dedup.Result) error {
				require.Equal(t, []dedup.Result{dedup.Duplicate, dedup.Claimed, dedup.Claimed}, got, "%s: %d turns", name, missed)
				return nil
			}))
			require.Equal(t, dedup.Duplicate, claim(t, pool, s, keys[1]))
		}
	}
}

// In a batch of the caller's there is no second try: its reading fails, and the
// next one knows better.
func TestQueueAfterManyTurns(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c"})
	asleep := store(t, pool, dedup.Config{Consumer: "c"})
	require.Equal(t, dedup.Claimed, claim(t, pool, s, foreignKey(1)))
	for range 3 {
		turn(t, pool, s)
	}
	queue := func() (result dedup.Result, err error) {
		err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			b := &pgx.Batch{}
			asleep.Queue(b, foreignKey(1), &result)
			return tx.SendBatch(t.Context(), b).Close()
		})
		return result, err
	}
	_, err := queue()
	require.ErrorContains(t, err, "the slots have moved on")
	got, err := queue()
	require.NoError(t, err)
	require.Equal(t, dedup.Duplicate, got)
}

// Ahead by days, and back: that costs a turn at most, so nothing that was received
// within the window is forgotten.
func TestForeignClaimsSurviveAClockThatIsSet(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	s := store(t, pool, dedup.Config{Consumer: "c", WindowDays: 2})
	require.Equal(t, dedup.Claimed, claim(t, pool, s, foreignKey(1)))
	exec(t, pool, `UPDATE inbox.retention SET turned_at = turned_at - interval '100 days'`) // as if now were later
	for range 5 {
		maintain(t, s)
	}
	require.Equal(t, 1, turns(t, pool), "a turn, however far ahead")
	exec(t, pool, `UPDATE inbox.retention SET turned_at = turned_at + interval '100 days'`) // and back
	maintain(t, s)
	require.Equal(t, 1, turns(t, pool))
	require.True(t, scan[bool](t, pool, `SELECT turned_at <= clock_timestamp() FROM inbox.retention`), "or there would be no turn for 100 days")
	for range 3 { // within two days there are three turns at most
		turn(t, pool, s)
	}
	require.Equal(t, dedup.Duplicate, claim(t, pool, s, foreignKey(1)))
}
