package relay

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// old makes a slot's events look older than any retention.
func (db *database) old(t testing.TB, slot int) {
	db.exec(t, fmt.Sprintf(`UPDATE outbox.event_%d SET created_at = created_at - interval '1 year'`, slot))
}

func (db *database) slot(t testing.TB) int {
	return scan[int](t, db.admin, `SELECT pg_sequence_last_value('outbox.slot_seq') & 7`)
}

func (db *database) inSlot(t testing.TB, slot int) int {
	return scan[int](t, db.admin, fmt.Sprintf(`SELECT count(*) FROM outbox.event_%d`, slot))
}

// Writers move on when the slot is old enough and the next is empty; what was
// published is truncated; an idle relay stores its position once for it.
func TestSlotsAreRotatedAndTruncated(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	running(t, r)
	first := db.slot(t)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "published")
	require.NoError(t, r.retainOnce(t.Context()))
	require.Equal(t, first, db.slot(t), "too young")
	db.old(t, first)
	require.NoError(t, r.retainOnce(t.Context()))
	require.Equal(t, (first+1)&7, db.slot(t), "next slot")
	require.Equal(t, 1, db.inSlot(t, first), "was the current one")

	eventually(t, func() bool {
		require.NoError(t, r.retainOnce(t.Context()))
		return db.inSlot(t, first) == 0
	}, "truncated")
	db.write(t, "k", "2")
	eventually(t, func() bool { return len(p.messages()) == 2 }, "goes on")
	require.Equal(t, 1, db.inSlot(t, (first+1)&7))
}

// The next slot is not empty: the current one grows.
func TestNoRotationOntoAFullSlot(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	db.exec(t, `SELECT setval('outbox.slot_seq', 12)`)
	db.write(t, "k", "1")
	db.exec(t, `SELECT setval('outbox.slot_seq', 11)`)
	db.write(t, "k", "2")
	db.old(t, 3)
	require.NoError(t, r.retainOnce(t.Context()))
	require.Equal(t, 3, db.slot(t))
	db.exec(t, `DELETE FROM outbox.event_4`)
	require.NoError(t, r.retainOnce(t.Context()))
	require.Equal(t, 4, db.slot(t))
}

// Nothing is truncated that a pipeline has not passed, be it behind, new or
// forgotten.
func TestUnpublishedEventsAreKept(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	running(t, r)
	first := db.slot(t)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "published")
	db.old(t, first)
	require.NoError(t, r.retainOnce(t.Context())) // moves on

	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('forgotten')`)
	_, err := r.engines[0].session().flush(t.Context(), true)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, r.reclaim(t.Context(), first))
		require.Equal(t, 1, db.inSlot(t, first), "a pipeline without positions")
	}
	db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b)
SELECT 'forgotten', array_agg(g::smallint), '', '3:3:', 0, '3' FROM generate_series(0, 63) g`)
	require.NoError(t, r.reclaim(t.Context(), first))
	require.Equal(t, 1, db.inSlot(t, first), "a pipeline at the start")
	db.exec(t, `DELETE FROM outbox.pipeline WHERE name = 'forgotten'`)
	storePast(t, db, r, first)
	eventually(t, func() bool { // not while the relay reads
		require.NoError(t, r.reclaim(t.Context(), first))
		return db.inSlot(t, first) == 0
	}, "truncated")
}

// storePast waits until the stored position is past a slot. Transactions of other
// tests on this server hold the xmin of every snapshot back.
func storePast(t *testing.T, db *database, r *Relay, slot int) {
	t.Helper()
	eventually(t, func() bool {
		_, err := r.engines[0].session().flush(t.Context(), true)
		require.NoError(t, err)
		return scan[bool](t, db.admin, fmt.Sprintf(`SELECT pg_snapshot_xmin(s) > (SELECT xid FROM outbox.event_%d ORDER BY xid DESC LIMIT 1)
FROM outbox.position ORDER BY n DESC LIMIT 1`, slot))
	}, "position stored")
}

// A writer is at work in the slot: truncation does not queue behind it. Negative
// control: with a check that is not made under the lock its event is lost.
func TestTruncationChecksUnderTheLock(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"kept": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			p := &recorder{}
			r := newRelay(t, db.relay, config(p))
			stop := running(t, r)
			first := db.slot(t)
			db.write(t, "k", "1")
			eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "published")
			storePast(t, db, r, first)
			tx := begin(t, db)
			txWrite(t, tx, "k", "2")
			require.NoError(t, stop())
			db.old(t, first)
			require.NoError(t, r.retainOnce(t.Context()))
			require.NotEqual(t, first, db.slot(t))

			if broken {
				r.q.slotLock = `SELECT 1`
			}
			done := make(chan error, 1)
			go func() { done <- r.reclaim(context.Background(), first) }()
			if broken {
				eventually(t, func() bool {
					return scan[int](t, db.admin, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
				}, "truncation queues")
			} else {
				require.NoError(t, <-done, "lock not available is no error")
				require.Equal(t, 1, db.inSlot(t, first), "and nothing was cut")
			}
			require.NoError(t, tx.Commit(t.Context()))
			if broken {
				require.NoError(t, <-done)
			}
			running(t, r)
			if broken {
				eventually(t, r.caughtUp, "caught up")
				require.Len(t, p.messages(), 1, "the control must lose the event")
				return
			}
			eventually(t, func() bool { return len(p.messages()) == 2 }, "kept and published")
		})
	}
}

// Pruning leaves the rows that are the latest of some shard, however old, and
// other pipelines' rows.
func TestPruningKeepsTheLatest(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b) VALUES
  ('test', '{0,1,2,3}', '', '3:3:', 1, '3'), -- superseded
  ('test', '{2,3}',     '', '3:3:', 2, '3'), -- the latest of 3
  ('else', '{0,1}',     '', '3:3:', 3, '3'),
  ('test', '{1}',       '', '3:3:', 4, '3'), -- superseded
  ('test', '{1,2}',     '', '3:3:', 5, '3'),
  ('test', '{0}',       '', '3:3:', 6, '3')`)
	r := newRelay(t, db.relay, config(&recorder{}))
	require.NoError(t, (&session{engine: r.engines[0]}).prune(t.Context()))
	require.Equal(t, "2 3 5 6", scan[string](t, db.admin, `SELECT string_agg(h::text, ' ' ORDER BY h) FROM outbox.position`))
}

// Bookkeeping stays small however long it goes on.
func TestPositionsArePruned(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	r.tune.flushEvery = time.Millisecond
	r.tune.pruneAfter = 5
	running(t, r)
	for i := range 60 {
		db.write(t, "k", fmt.Sprint(i))
		eventually(t, func() bool { return len(p.messages()) == i+1 }, "published")
	}
	require.Less(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`), 30)
}
