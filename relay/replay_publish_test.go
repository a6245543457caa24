package relay

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// pickyBroker refuses some payloads, and as a publisher must holds back what is
// behind them.
func pickyBroker(refuse func(m brokers.Message) error) *recorder {
	return &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		held := map[string]bool{}
		for i, m := range msgs {
			if held[m.Key] {
				results[i] = brokers.ErrHeld
			} else if results[i] = refuse(m); results[i] != nil {
				held[m.Key] = true
			}
		}
		return results
	}}
}

func refusing(payloads ...string) func(brokers.Message) error {
	return func(m brokers.Message) error {
		for _, p := range payloads {
			if string(m.Payload) == p {
				return &brokers.Error{Class: brokers.ClassRejected, Topic: m.Topic, Err: errors.New("too large\x00")}
			}
		}
		return nil
	}
}

// One bad event costs a replay its own key at most: the rest goes on, in order, and
// what was left out is on record.
func TestReplayPassesOverRefusedEvents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		block *bool
		want  func(i int) bool // of 40 events, four keys in turn; 5 and 13 are of key 1
		held  int64
	}{
		"its key waits":      {nil, func(i int) bool { return i%4 != 1 || i < 5 }, 8},
		"later ones pass it": {new(false), func(i int) bool { return i != 5 && i != 13 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			for i := range 40 {
				db.write(t, fmt.Sprint(i%4), fmt.Sprint(i))
			}
			db.passed(t)
			p := pickyBroker(refusing("5", "13"))
			cfg := replayTo(t, p)
			cfg.Pipeline.BlockKey = c.block
			cfg.Rate = 24 // pages of 6
			got, err := Replay(t.Context(), db.relay, cfg)
			require.NoError(t, err)
			want, perKey, sent := map[string]bool{}, map[string]int{}, p.messages()
			for i := range 40 {
				if c.want(i) {
					want[fmt.Sprint(i)] = true
				}
			}
			require.Len(t, sent, len(want), "each once")
			for _, m := range sent {
				var n int
				_, err := fmt.Sscan(string(m.Payload), &n)
				require.NoError(t, err)
				require.True(t, want[string(m.Payload)], n)
				require.GreaterOrEqual(t, n, perKey[m.Key], "order of the key")
				perKey[m.Key] = n
			}
			require.EqualValues(t, len(want), got.Published)
			require.Equal(t, c.held, got.Held)
			require.EqualValues(t, 40, got.Published+got.Held+int64(len(got.Refused)))
			f := got.Refused[0]
			require.Equal(t, "1", f.Key)
			require.Equal(t, scan[string](t, db.admin, `SELECT event_id::text FROM outbox.event WHERE payload = '5'`), f.ID)
			require.Contains(t, f.Reason, "too large")
			list, err := Replays(t.Context(), db.relay, "")
			require.NoError(t, err)
			require.Equal(t, replayDone, list[0].State)
			require.Equal(t, got.Refused, list[0].Refused)
			require.Equal(t, got.Held, list[0].Held)
		})
	}
}

// A destination that refuses everything is not passed over: the replay stops, and
// goes on when it is mended. What is held back stays so, and is not counted twice.
func TestReplayStopsAfterManyRefusals(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const events = refusedMost + 50
	for i := range events {
		db.write(t, fmt.Sprint(i%140), fmt.Sprint(i)) // the last ten are behind the first ten
	}
	db.passed(t)
	mended := false
	p := pickyBroker(func(m brokers.Message) error {
		if mended {
			return nil
		}
		return refusing(string(m.Payload))(m)
	})
	cfg := replayTo(t, p)
	cfg.Rate = 160 // pages of 40
	first, err := Replay(t.Context(), db.relay, cfg)
	require.ErrorIs(t, err, ErrRefused)
	require.Len(t, first.Refused, refusedMost)
	require.Equal(t, replayStopped, scan[string](t, db.admin, `SELECT state FROM outbox.replay`))
	// As after a kill: the cursor is older than what is known to be refused.
	db.exec(t, `UPDATE outbox.replay SET cursor = cursor - 30`)

	mended = true
	cfg.Resume = first.ID
	got, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Len(t, got.Refused, refusedMost)
	require.EqualValues(t, 10, got.Held)
	require.Len(t, p.messages(), events-refusedMost-10)
}

// Somebody has to mend the topic; meanwhile the replay waits, says for what, and
// loses nothing.
func TestReplayWaitsForABadDestination(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 20 {
		db.write(t, fmt.Sprint(i%3), fmt.Sprint(i))
	}
	db.passed(t)
	mended := false
	p := pickyBroker(func(m brokers.Message) error {
		if mended || string(m.Payload) != "7" {
			return nil
		}
		return &brokers.Error{Class: brokers.ClassDestination, Topic: m.Topic, Err: errors.New("no such topic")}
	})
	answer := p.answer
	p.answer = func(ctx context.Context, call int, msgs []brokers.Message) []error {
		// Said by the call before, a quarter of a second after the beginning.
		mended = mended || scan[bool](t, db.admin, `SELECT error LIKE '%no such topic%' AND state = 'running' FROM outbox.replay`)
		return answer(ctx, call, msgs)
	}
	got, err := Replay(t.Context(), db.relay, replayTo(t, p))
	require.NoError(t, err)
	require.True(t, mended)
	require.Len(t, p.messages(), 20)
	require.Empty(t, got.Refused)
}

// The record of replays does not grow for ever; what can be resumed stays.
func TestOldReplaysAreForgotten(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.write(t, "k", "1")
	db.passed(t)
	db.exec(t, `INSERT INTO outbox.replay (pipeline, destination, filter, slots, bound, first, last, cursor, runner, requested_by, reason, state, started_at, updated_at)
SELECT 'test', 'test', '{}', '[]', '[]', 0, 0, 0, '', '', g::text, CASE WHEN g IN (1, 2) THEN 'stopped' ELSE 'done' END,
  now() - interval '1 year' + g * interval '1 second', CASE WHEN g = 1 THEN now() ELSE now() - interval '40 days' END FROM generate_series(1, $1::int) g`, replaysKept+10)
	_, err := Replay(t.Context(), db.relay, replayTo(t, &recorder{}))
	require.NoError(t, err)
	require.Equal(t, replaysKept+2, scan[int](t, db.admin, `SELECT count(*) FROM outbox.replay`), "and the stopped and the new one")
	require.True(t, scan[bool](t, db.admin, `SELECT EXISTS (SELECT FROM outbox.replay WHERE reason = '1')`), "can be resumed")
	require.False(t, scan[bool](t, db.admin, `SELECT EXISTS (SELECT FROM outbox.replay WHERE reason = '2')`), "given up long ago")
}
