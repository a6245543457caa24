package relay

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Between the look at the other pipeline's position and the commit that stores the
// copy, the other one goes on and its slot becomes ready to be truncated: it is
// kept. Negative control: without the lock the event is lost to the new pipeline.
func TestRegistrationHoldsTruncationBack(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"kept": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			from, to := &recorder{}, &recorder{}
			old := newRelay(t, db.relay, config(from))
			stop := running(t, old)
			eventually(t, old.owns, "registered")
			require.NoError(t, stop())
			first := db.slot(t)
			db.write(t, "k", "1")

			// The copy waits after its INSERT.
			db.exec(t, `CREATE FUNCTION outbox.hold() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END'`)
			db.exec(t, `CREATE TRIGGER hold AFTER INSERT ON outbox.position FOR EACH ROW WHEN (NEW.pipeline = 'new') EXECUTE FUNCTION outbox.hold()`)
			gate, err := db.admin.Begin(t.Context())
			require.NoError(t, err)
			_, err = gate.Exec(t.Context(), `SELECT pg_advisory_xact_lock(7)`)
			require.NoError(t, err)
			r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "new", To: to, Start: Start{Pipeline: "test"}}}})
			if broken {
				r.q.registerLock = `SELECT 1`
			}
			running(t, r)
			eventually(t, func() bool {
				return scan[int](t, db.admin, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`) == 1
			}, "copied, not committed")

			running(t, old)
			eventually(t, func() bool { return len(from.messages()) == 1 && old.caughtUp() }, "published by the old one")
			db.old(t, first)
			require.NoError(t, old.retainOnce(t.Context()))
			storePast(t, db, old, first)
			if broken { // other tests on this server may hold the xmin back for a moment
				eventually(t, func() bool {
					require.NoError(t, old.reclaim(t.Context(), first))
					return db.inSlot(t, first) == 0
				}, "the control must truncate")
			} else {
				require.NoError(t, old.reclaim(t.Context(), first))
			}
			require.NoError(t, gate.Commit(t.Context()))
			if broken {
				eventually(t, func() bool { return r.owns() && r.caughtUp() }, "caught up")
				require.Empty(t, to.messages(), "the control must lose the event")
				return
			}
			eventually(t, func() bool { return len(to.messages()) == 1 }, "published by the new one")
		})
	}
}
