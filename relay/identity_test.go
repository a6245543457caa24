package relay

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// byHand is a session whose goroutines are not running.
func byHand(t *testing.T, r *Relay) *session {
	t.Helper()
	tn, err := r.begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { tn.end(nil) })
	e := r.engines[0]
	require.NoError(t, e.register(t.Context(), tn))
	s := &session{engine: e, t: tn, progress: newProgress(), parking: e.newParking()}
	s.ctx, s.end = tn.work, tn.end
	require.NoError(t, s.takeUp(t.Context(), shardCount))
	s.progress.adopt(map[position][]int16{})
	return s
}

var allShards = func() (list []int16) {
	for i := range int16(shardCount) {
		list = append(list, i)
	}
	return list
}()

// After a recovery every look at the log and every flush is refused: probe, page
// of late and of new rows, load, flush. Both when the token is missing and when
// somebody else has written a new one; an empty one never equals a missing one.
func TestEveryStatementCarriesTheToken(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := byHand(t, newRelay(t, db.relay, config(&recorder{})))
	ctx := t.Context()
	late := begin(t, db)
	txWrite(t, late, "k", "late")
	before, err := s.probe(ctx)
	require.NoError(t, err)
	require.NoError(t, late.Commit(ctx))
	db.write(t, "k", "new")
	now, err := s.probe(ctx)
	require.NoError(t, err)
	at := before.position().begin(now)
	afterLate := at
	afterLate.c = at.h

	looks := map[string]func() error{
		"probe":     func() error { _, err := s.probe(ctx); return err },
		"late page": func() error { _, err := s.page(ctx, at, allShards); return err },
		"new page":  func() error { _, err := s.page(ctx, afterLate, allShards); return err },
		"load":      func() error { _, err := s.load(ctx, s.t, allShards); return err },
	}
	for name, look := range looks {
		require.NoError(t, look(), name)
	}
	p, err := s.page(ctx, at, allShards)
	require.NoError(t, err)
	require.Len(t, p.events, 1)
	require.Equal(t, "late", string(p.events[0].msg.Payload))

	for _, recovery := range []string{`TRUNCATE outbox.incarnation`, `INSERT INTO outbox.incarnation DEFAULT VALUES`} {
		db.exec(t, recovery)
		for name, look := range looks {
			require.ErrorIs(t, look(), errIncarnation, name)
		}
		rows := scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`)
		s.progress.advance(allShards, p.to, true)
		for _, sp := range s.progress.shards {
			sp.lost = false // by the first time round
		}
		_, err = s.flush(ctx, false)
		require.ErrorIs(t, err, errLeaseLost)
		require.Equal(t, rows, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`))
		memory := s.t.token
		s.t.token = token{} // an empty one
		for name, look := range looks {
			require.ErrorIs(t, look(), errIncarnation, name)
		}
		s.t.token = memory
	}
}

// A takeover raises every epoch, and a flush that a takeover overlaps is refused.
func TestTakeoverFencesTheFormerOwner(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	old := byHand(t, newRelay(t, db.relay, config(&recorder{})))
	db.exec(t, `DELETE FROM outbox.instance`)
	young := byHand(t, newRelay(t, db.relay, config(&recorder{})))
	for shard := range int16(shardCount) {
		require.Equal(t, old.progress.shards[shard].epoch+1, young.progress.shards[shard].epoch)
	}
	db.write(t, "k", "1")
	pr, err := old.probe(t.Context())
	require.NoError(t, err)
	old.progress.advance(allShards, pr.position(), true)
	_, err = old.flush(t.Context(), false)
	require.ErrorIs(t, err, errLeaseLost)
	young.progress.advance(allShards, pr.position(), true)
	n, err := young.flush(t.Context(), false)
	require.NoError(t, err)
	require.Equal(t, 1, n, "one row for one position")
}
