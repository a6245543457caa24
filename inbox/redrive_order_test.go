package inbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// A dead letter behind another of its key waits for it, though only it was chosen.
func TestRedriveBehindADeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	msgs := []brokers.Message{message("a", 0), message("a", 1), message("a", 2), message("a", 3)}
	poison := msgs[2]
	poison.Payload = []byte("?")
	w.bury(w.config("inventory"), msgs[0], msgs[1], poison, msgs[3])
	w.exec(`UPDATE inbox.dead SET payload = $1 WHERE reason = 'undecodable'`, msgs[2].Payload)
	require.Equal(t, "0 dead, 1 blocked, 2 dead, 3 blocked", w.states())

	in := w.redriving(w.config("inventory"), insert("inventory"))
	require.EqualValues(t, 1, w.redrive(inbox.DeadFilter{Class: "undecodable"}))
	require.Equal(t, "0 dead, 1 blocked, 2 blocked, 3 blocked", w.states())
	pgtest.Never(t, func() bool { return w.effects() > 0 }, 50*time.Millisecond, 5*time.Millisecond)
	require.EqualValues(t, 1, w.redrive(inbox.DeadFilter{Class: "attempts", Reason: "broken"}))
	eventually(t, "all", func() bool { return w.effects() == 4 })
	require.NoError(t, in.end())
	require.Equal(t, "0 1 2 3", w.applied())
}

// Without BlockKey dead letters do not wait for others, but those that are redriven
// together are handled in order.
func TestRedriveWithoutBlockKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.BlockKey = new(false)
	var msgs []brokers.Message
	for n := range 10 {
		msgs = append(msgs, message("a", n))
	}
	w.bury(cfg, append(msgs, message("", 20), message("", 21))...)
	require.Equal(t, 12, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead' AND NOT blocks`))
	list, err := inbox.DeadLetters(t.Context(), w.pool, "", inbox.DeadFilter{ID: msgs[5].ID}, 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1)

	cfg.From = w.broker.Subscriber("inventory", "orders")
	in := w.redriving(cfg, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Data.N == 2 {
			return inbox.Permanent(errBroken)
		}
		return insert("inventory")(ctx, tx, e)
	})
	w.redrive(inbox.DeadFilter{N: list[0].N})
	eventually(t, "one alone", func() bool { return w.effects() == 1 })
	require.Equal(t, "5", w.applied())
	w.redrive(inbox.DeadFilter{})
	eventually(t, "the others", func() bool { return w.effects() == 11 })
	require.NoError(t, in.end())
	require.Equal(t, "5 0 1 3 4 6 7 8 9", w.of("a"), "one that fails stops nobody")
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'dead'`))
}

// Who stores an event behind a dead letter holds the key's lock until that is
// committed; whoever resolves the dead letter meanwhile waits, and finds it.
func TestEventStoredBehindADeadLetterThatIsBeingResolved(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"redriven": "0 1", "discarded": "1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.bury(w.config("inventory"), message("a", 0))
			in := w.redriving(w.config("inventory"), insert("inventory"))
			ctx := t.Context()
			storing, err := w.pool.Begin(ctx)
			require.NoError(t, err)
			defer storing.Rollback(context.Background()) //nolint:errcheck // after a failure
			_, err = storing.Exec(ctx, `SELECT pg_advisory_xact_lock(key_hash # (consumer::bigint << 32) # x'6465616420'::bigint) FROM inbox.dead`)
			require.NoError(t, err)
			_, err = storing.Exec(ctx, `INSERT INTO inbox.dead (consumer, event_key, state, blocks, reason, attempts, topic, key, key_hash, id, source, type,
				content_type, correlation_id, causation_id, headers, payload, origin_broker, origin_topic, origin_partition, origin_offset)
				SELECT consumer, gen_random_uuid(), 'blocked', true, 'blocked', 0, topic, key, key_hash, 'second', source, type,
				content_type, correlation_id, causation_id, headers, '{"id":"a","n":1}', origin_broker, origin_topic, origin_partition, origin_offset
				FROM inbox.dead`)
			require.NoError(t, err)
			done := make(chan error, 1)
			if name == "redriven" { // only the handling is to meet the lock
				w.exec(`UPDATE inbox.dead SET state = 'retrying' WHERE n = 1`)
				done <- nil
			} else {
				go func() {
					_, err := inbox.Discard(context.Background(), w.pool, "", inbox.DeadFilter{N: 1}, why)
					done <- err
				}()
			}
			eventually(t, "somebody to wait for the key's lock", func() bool {
				return w.count(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 1
			})
			require.NoError(t, storing.Commit(ctx))
			require.NoError(t, <-done)
			eventually(t, "the second", func() bool { return w.effects("second") == 1 })
			require.NoError(t, in.end())
			require.Equal(t, want, w.applied())
		})
	}
}

// Dead letters with a copy at the broker wait for a person like others.
func TestRedriveOfWhatWasRouted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 0), message("b", 1), message("c", 2))
	w.exec(`UPDATE inbox.dead SET state = CASE key WHEN 'a' THEN 'moved' ELSE 'moving' END`)
	in := w.redriving(w.config("inventory"), insert("inventory"))
	require.EqualValues(t, 1, w.redrive(inbox.DeadFilter{State: "moved"}))
	n, err := inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{Key: "c"}, why)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	eventually(t, "the moved one", func() bool { return w.effects() == 1 })
	w.redrive(inbox.DeadFilter{})
	eventually(t, "both", func() bool { return w.effects() == 2 })
	require.NoError(t, in.end())
	require.Equal(t, "0 redriven, 1 redriven, 2 discarded", w.states())
}

// A stop does not wait for a redriven event longer than for messages: its handler's
// context ends, nothing of it stays, and another inbox handles it.
func TestRedriveIsGivenUpAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 0), message("a", 1))
	entered := make(chan struct{})
	in := w.redriving(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if err := insert("inventory")(ctx, tx, e); err != nil {
			return err
		}
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	w.redrive(inbox.DeadFilter{})
	<-entered
	began := time.Now()
	require.NoError(t, in.end())
	require.Less(t, time.Since(began), 10*time.Second, "the handler has 30 s")
	require.Zero(t, w.effects())
	require.Equal(t, "0 retrying, 1 blocked", w.states())
	require.Zero(t, in.Stats().Failures)
	in = w.redriving(w.config("inventory"), insert("inventory"))
	eventually(t, "both", func() bool { return w.effects() == 2 })
	require.NoError(t, in.end())
	require.Equal(t, "0 1", w.applied())
}
