package relay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// With the constants of production one relay writes at most 10 rows a second that
// are not events, however many events there are.
func TestBookkeepingIsBounded(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.counters(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune = defaultTuning()
	running(t, r)
	eventually(t, r.caughtUp, "caught up")
	rows := func() int { // counts reach the view within about a second
		return scan[int](t, db.admin, `SELECT coalesce(sum(n_tup_ins + n_tup_upd), 0)::int FROM pg_stat_user_tables
WHERE schemaname = 'outbox' AND relname NOT LIKE 'event\_%'`)
	}
	eventually(t, func() bool { return rows() >= 64 }, "the registration is counted")
	before, began := rows(), time.Now()
	l := &load{t: t, db: db, seed: seed(t)}
	l.run(duration(t, 5*time.Second))
	perSecond := float64(rows()-before) / time.Since(began).Seconds()
	events := len(p.messages())
	t.Logf("%.1f rows a second, %d events published", perSecond, events)
	require.Positive(t, events)
	require.Positive(t, perSecond, "positions were counted")
	require.LessOrEqual(t, perSecond, 10.0)
}
