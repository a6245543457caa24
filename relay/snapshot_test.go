package relay

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func mustSnapshot(t testing.TB, text string) *snapshot {
	t.Helper()
	s, err := parseSnapshot(text)
	require.NoError(t, err)
	return s
}

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	s := mustSnapshot(t, "10:20:10,14,15")
	require.Equal(t, &snapshot{text: "10:20:10,14,15", xmin: 10, xmax: 20, xip: []uint64{10, 14, 15}}, s)
	require.Empty(t, mustSnapshot(t, "10:10:").xip)
	require.Equal(t, uint64(1<<40), mustSnapshot(t, "1099511627776:1099511627776:").xmin, "64 bits")
	for _, bad := range []string{"", "1:2", "a:2:", "1:b:", "1:2:c", "1:2:,"} {
		_, err := parseSnapshot(bad)
		require.ErrorContains(t, err, fmt.Sprintf("%q", bad))
	}
}

// Our visibility is Postgres's own.
func TestSeesIsPgVisibleInSnapshot(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	r := rand.New(rand.NewPCG(seed(t), 1))
	for range 30 {
		low := 100 + r.Uint64N(50)
		high := low + r.Uint64N(30)
		xip := []string{}
		for x := low; x < high; x++ {
			if x == low || r.IntN(3) == 0 {
				xip = append(xip, fmt.Sprint(x))
			}
		}
		text := fmt.Sprintf("%d:%d:%s", low, high, strings.Join(xip, ","))
		s := mustSnapshot(t, text)
		rows, err := pool.Query(t.Context(), `SELECT x, pg_visible_in_snapshot(x::text::xid8, $1::text::pg_snapshot) FROM generate_series($2::bigint, $3::bigint) x`,
			text, low-3, high+3)
		require.NoError(t, err)
		var x uint64
		var visible bool
		_, err = pgx.ForEachRow(rows, []any{&x, &visible}, func() error {
			require.Equal(t, visible, s.sees(x), "%d in %s", x, text)
			return nil
		})
		require.NoError(t, err)
	}
}

func TestPending(t *testing.T) {
	t.Parallel()
	p := position{s: mustSnapshot(t, "10:15:10,12"), b: 18}
	for cur, want := range map[string][]uint64{
		"10:15:10,12":       nil,                  // nothing has ended since
		"10:16:10,12,15":    nil,                  //
		"10:17:10,12,15":    {16},                 // above xmax(S), below B
		"12:17:12,15,16":    {10},                 // in xip(S)
		"19:19:":            {10, 12, 15, 16, 17}, // all; 18 drew its ids after H
		"30:40:30,31,32,33": {10, 12, 15, 16, 17}, //
		"15:20:15,18":       {10, 12, 16, 17},     //
	} {
		require.Equal(t, want, p.pending(mustSnapshot(t, cur)), cur)
	}
	require.Empty(t, start.pending(mustSnapshot(t, "99:99:")))
	require.Equal(t, "{10,16}", formatXids([]uint64{10, 16}))
}

// A sequence that cannot be read is an error, never a position of 0 or NULL.
func TestUnreadableSequenceIsAnError(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	running(t, r)
	eventually(t, r.caughtUp, "started")
	db.exec(t, `ALTER SEQUENCE outbox.event_id_seq RESTART WITH 1000`) // reads as NULL until it is used
	eventually(t, func() bool { return strings.Contains(r.Stats().Pipelines[0].LastError, errSequence.Error()) }, "reported")
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published")
}
