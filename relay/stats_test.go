package relay

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

func TestThroughput(t *testing.T) {
	t.Parallel()
	var r throughput
	at := func(s int64) time.Time { return time.Unix(1_000_000+s, 0) }
	require.Zero(t, r.perSecond(at(0)))
	r.add(at(0), 10)
	r.add(at(0), 10)
	require.Zero(t, r.perSecond(at(0)), "no second is over")
	require.InDelta(t, 20, r.perSecond(at(1)), 0.01)
	r.add(at(1), 40)
	require.InDelta(t, 30, r.perSecond(at(2)), 0.01)
	require.InDelta(t, 15, r.perSecond(at(4)), 0.01)
	require.InDelta(t, 4, r.perSecond(at(11)), 0.01, "the first second is too long ago")
	require.Zero(t, r.perSecond(at(100)))
	r.add(at(100), 50)
	require.InDelta(t, 5, r.perSecond(at(101)), 0.01)
}

// Rate, oldest event and circuits, of a healthy broker and of one that is away.
func TestStatsSayHowItIs(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	away := make(chan struct{})
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		select {
		case <-away:
			for i := range results {
				results[i] = &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("away")}
			}
		default:
		}
		return results
	}}
	r := newRelay(t, db.relay, config(p))
	require.Equal(t, "closed", r.Stats().Pipelines[0].Circuit)
	running(t, r)
	db.write(t, "k", "1")
	stats := func() PipelineStats { return r.Stats().Pipelines[0] }
	eventually(t, func() bool { return stats().PublishedPerSecond > 0 }, "a rate")
	eventually(t, r.caughtUp, "caught up")
	require.Zero(t, stats().OldestUnsentSeconds)
	require.Equal(t, "closed", stats().Circuit)

	close(away)
	_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, time) VALUES ('t', 'k', 'x', '/', clock_timestamp() - interval '1 hour')`)
	require.NoError(t, err)
	eventually(t, func() bool { s := stats(); return s.OldestUnsentSeconds > 3500 && s.Circuit != "closed" }, "seen")
}
