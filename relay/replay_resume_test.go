package relay

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/services/pgbouncer"
)

// Interrupted, it goes on where it was: nothing is missing, and after a clean stop
// nothing comes twice.
func TestReplayResumes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 100 {
		db.write(t, "k", fmt.Sprint(i))
	}
	db.passed(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := &recorder{}
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		if call == 3 {
			cancel()
		}
		return make([]error, len(msgs))
	}
	cfg := replayTo(t, p)
	cfg.Rate = 80 // pages of 20
	first, err := Replay(ctx, db.relay, cfg)
	require.ErrorIs(t, err, context.Canceled)
	list, err := Replays(t.Context(), db.relay, "")
	require.NoError(t, err)
	require.Equal(t, "stopped", list[0].State)
	require.Equal(t, "a test", list[0].Reason)
	require.NotEmpty(t, list[0].Error)

	cfg.Resume = first.ID
	got, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Equal(t, first.ID, got.ID)
	require.EqualValues(t, 100, got.Published)
	require.Len(t, p.messages(), 100)
	for i, payload := range p.payloads() {
		require.Equal(t, fmt.Sprint(i), payload)
	}
	_, err = Replay(t.Context(), db.relay, cfg)
	require.ErrorIs(t, err, ErrReplayEnded)
	cfg.Resume = "nonsense"
	_, err = Replay(t.Context(), db.relay, cfg)
	require.ErrorIs(t, err, ErrNoReplay)
}

// One that is resumed elsewhere, while it still runs, stops.
func TestReplayIsTakenOver(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 40 {
		db.write(t, "k", fmt.Sprint(i))
	}
	db.passed(t)
	p, second := &recorder{}, &recorder{}
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		if call == 1 {
			cfg := replayTo(t, second)
			cfg.Resume = scan[string](t, db.admin, `SELECT id::text FROM outbox.replay`)
			_, err := Replay(t.Context(), db.relay, cfg)
			require.NoError(t, err)
		}
		return make([]error, len(msgs))
	}
	cfg := replayTo(t, p)
	cfg.Rate = 20 // pages of 5
	_, err := Replay(t.Context(), db.relay, cfg)
	require.ErrorIs(t, err, ErrReplayTaken)
	require.Less(t, len(p.messages()), 40)
	require.Equal(t, "39", second.payloads()[len(second.payloads())-1])
}

// A slot that is truncated before the replay came to it ends the replay, and the
// error says which part is gone; one that was done does not matter.
func TestReplayNoticesTruncation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		slot int
		sent int
		lost bool
	}{"still to come": {2, 30, true}, "under way": {1, 10, true}, "done": {0, 90, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			for slot := range 3 {
				db.exec(t, `SELECT setval('outbox.slot_seq', $1)`, 8+slot)
				for i := range 30 {
					db.write(t, "k", fmt.Sprint(slot*30+i))
				}
			}
			db.passed(t)
			p := &recorder{}
			at := map[int]int{2: 0, 1: 3, 0: 6}[c.slot] // the call during which it goes
			p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
				if call == at {
					db.exec(t, fmt.Sprintf(`TRUNCATE outbox.event_%d`, c.slot))
					db.write(t, "k", "the slot is used again")
				}
				return make([]error, len(msgs))
			}
			cfg := replayTo(t, p)
			cfg.Rate = 40 // pages of 10
			got, err := Replay(t.Context(), db.relay, cfg)
			if !c.lost {
				require.NoError(t, err)
				require.Len(t, p.messages(), 90)
				return
			}
			require.ErrorIs(t, err, ErrTruncated)
			var lost *TruncatedError
			require.ErrorAs(t, err, &lost)
			require.Len(t, lost.Parts, 1)
			part := lost.Parts[0]
			require.Equal(t, c.slot, part.Slot)
			require.Equal(t, "truncated", scan[string](t, db.admin, `SELECT state FROM outbox.replay`))
			require.EqualValues(t, 30*(c.slot+1)-1, part.LastID-scan[int64](t, db.admin, `SELECT first + 1 FROM outbox.replay`))
			require.Equal(t, scan[int64](t, db.admin, `SELECT greatest(cursor + 1, first + 1 + $1) FROM outbox.replay`, 30*c.slot), part.FirstID)
			require.ErrorContains(t, err, fmt.Sprintf("log ids %d to %d of slot %d", part.FirstID, part.LastID, c.slot))
			for i, payload := range p.payloads() {
				require.Equal(t, fmt.Sprint(i), payload, "nothing beyond the gap")
			}
			cfg.Resume = got.ID
			_, err = Replay(t.Context(), db.relay, cfg)
			require.ErrorIs(t, err, ErrReplayEnded)
		})
	}
}

// Postgres crashes between two pages: the replay waits for it, reads what is stored
// and goes on.
func TestReplayGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t)
	db := migrated(t, server.URL("postgres"))
	for i := range 40 {
		db.write(t, "k", fmt.Sprint(i))
	}
	db.passed(t)
	p := &recorder{}
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		if call == 1 {
			require.NoError(t, server.Kill())
			require.NoError(t, server.Start(context.Background()))
		}
		return make([]error, len(msgs))
	}
	cfg := replayTo(t, p)
	cfg.Rate = 40
	_, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	requireReplayed(t, p.payloads(), 40)
}

// requireReplayed: each number below n is there, the first ones in order.
func requireReplayed(t *testing.T, payloads []string, n int) {
	t.Helper()
	next := 0
	for _, payload := range payloads {
		var i int
		_, err := fmt.Sscan(payload, &i)
		require.NoError(t, err)
		require.LessOrEqual(t, i, next, "nothing is missing, first publications are in order")
		next = max(next, i+1)
	}
	require.Equal(t, n, next)
}

// The standby that takes over knows less of the replay than had been stored, and
// takes new events at once: what it knows is gone on from, what is new is not of the
// replay.
func TestReplayGoesOnAfterAFailover(t *testing.T) {
	t.Parallel()
	for name, pooler := range map[string]bool{"direct": false, "through pgbouncer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := pgbouncer.Available(); pooler && err != nil {
				skip(t, err.Error())
			}
			ctx := t.Context()
			primary := pgtest.Own(t)
			db := migrated(t, primary.URL("postgres"))
			for i := range 40 {
				db.write(t, "k", fmt.Sprint(i))
			}
			db.passed(t)
			standby, err := primary.Standby(ctx, nil)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, standby.Close(context.Background())) })
			pool, route := routed(t, primary, pooler)
			p := &recorder{}
			p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
				switch call {
				case 2:
					require.NoError(t, standby.CatchUp(ctx, primary))
					require.NoError(t, standby.Detach(ctx))
				case 5:
					require.NoError(t, primary.Kill())
					require.NoError(t, standby.Promote(ctx))
					after := opened(t, standby.URL("postgres"))
					require.Less(t, scan[int](t, after.admin, `SELECT published FROM outbox.replay`), len(p.messages()), "it lags")
					after.write(t, "k", "after")
					route(standby)
				}
				return make([]error, len(msgs))
			}
			cfg := replayTo(t, p)
			cfg.Rate = 20 // pages of 5
			got, err := Replay(ctx, pool, cfg)
			require.NoError(t, err)
			requireReplayed(t, p.payloads(), 40)
			if !pooler { // which may hide that the progress is stored on another server
				require.Greater(t, len(p.messages()), 40, "it has met the failover")
			}
			list, err := Replays(ctx, pool, "")
			require.NoError(t, err)
			require.Equal(t, replayDone, list[0].State)
			require.Equal(t, got.Published, list[0].Published)
		})
	}
}
