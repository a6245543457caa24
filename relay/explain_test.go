package relay

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

const insertID = `INSERT INTO outbox.event (event_id, topic, key, type, source, payload) VALUES ($1::text::uuid, 't', $2, 'test', '/test', 'secret')`

func (db *database) newID(t testing.TB) string {
	return scan[string](t, db.admin, `SELECT outbox.uuid_v7()::text`)
}

// writeID writes an event and returns its id.
func (db *database) writeID(t testing.TB, key string) string {
	t.Helper()
	id := db.newID(t)
	_, err := db.writer.Exec(t.Context(), insertID, id, key)
	require.NoError(t, err)
	return id
}

// explained asks as the relay's role does.
func explained(t testing.TB, db *database, id string) Explanation {
	t.Helper()
	e, err := Explain(t.Context(), db.relay, ExplainConfig{ID: id})
	require.NoError(t, err)
	text, err := json.Marshal(e)
	require.NoError(t, err)
	require.NotContains(t, string(text), "secret", "payloads stay where they are")
	return e
}

// story is what the pipeline "test" has done with the only event that has the id.
func story(t testing.TB, db *database, id string) PipelineStory {
	t.Helper()
	e := explained(t, db, id)
	require.Nil(t, e.Missing)
	require.Len(t, e.Events, 1)
	for _, p := range e.Events[0].Pipelines {
		if p.Pipeline == "test" {
			return p
		}
	}
	t.Fatalf("no pipeline test in %+v", e.Events[0])
	return PipelineStory{}
}

func kinds(list []Reason) (kinds []string) {
	for _, r := range list {
		kinds = append(kinds, r.Kind)
	}
	return kinds
}

func TestExplainPublished(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	stop := running(t, r)
	eventually(t, r.owns, "started")
	before := scan[time.Time](t, db.admin, `SELECT clock_timestamp()`)
	id := db.writeID(t, "k")
	eventually(t, func() bool { return story(t, db, id).State == StoryPublished }, "published and stored")
	require.NoError(t, stop())
	p := story(t, db, id)
	require.True(t, p.Exact, "the position of the start did not pass it")
	require.True(t, p.PublishedBy.After(before))
	require.Equal(t, scan[string](t, db.admin, `SELECT owner FROM outbox.position WHERE owner <> '' ORDER BY n LIMIT 1`), p.Instance)
	require.Equal(t, "t", p.Destination)

	log := explained(t, db, strings.ToUpper(" {"+id+"} ")).Events[0].Log
	require.NotNil(t, log)
	require.Equal(t, scan[int64](t, db.admin, `SELECT id FROM outbox.event`), log.ID)
	require.EqualValues(t, len("secret"), log.Bytes)

	// Older positions are forgotten: nobody knows any more when it was.
	db.exec(t, `DELETE FROM outbox.position WHERE n < (SELECT max(n) FROM outbox.position WHERE cardinality(shards) = 64)`)
	p = story(t, db, id)
	require.Equal(t, StoryPublished, p.State)
	require.False(t, p.Exact)

	// A mapping changes where it is said to have gone.
	e, err := Explain(t.Context(), db.relay, ExplainConfig{ID: id, Topic: func(pipeline, topic string) string { return pipeline + "." + topic }})
	require.NoError(t, err)
	require.Equal(t, "test.t", e.Events[0].Pipelines[0].Destination)
}

// Nobody publishes: no relay has ever had the shard, the last one has gone, or is
// silent.
func TestExplainNoOwner(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	stop := running(t, r)
	eventually(t, r.owns, "started")
	require.NoError(t, stop())
	db.write(t, "other", "1")
	db.write(t, "other", "2")
	id := db.writeID(t, "k")
	p := story(t, db, id)
	require.Equal(t, StoryWaiting, p.State)
	require.Equal(t, []string{WhyNoOwner}, kinds(p.Reasons))
	require.Contains(t, p.Reasons[0].Cure, "relay run")
	require.EqualValues(t, 2, p.Ahead)

	db.exec(t, `INSERT INTO outbox.instance (name, pipelines, beat_at, expires_at) VALUES ('dead', '{test}', clock_timestamp() - interval '1 min', clock_timestamp() - interval '45 s')`)
	db.exec(t, `UPDATE outbox.lease SET owner = 'dead'`)
	p = story(t, db, id)
	require.Equal(t, []string{WhySilent}, kinds(p.Reasons))
	require.Contains(t, p.Reasons[0].Text, "dead holds the lease")
	require.Contains(t, p.Reasons[0].Text, "no other relay runs")
}

func TestExplainCircuits(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		for i := range results {
			results[i] = &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("away")}
		}
		return results
	}}
	cfg := config(p)
	cfg.Lease = time.Second // a heartbeat every third of it
	running(t, newRelay(t, db.relay, cfg))
	id := db.writeID(t, "k")
	eventually(t, func() bool {
		s := explained(t, db, id).Events[0].Pipelines
		return len(s) == 1 && s[0].State == StoryWaiting && len(s[0].Reasons) == 1 && s[0].Reasons[0].Kind == WhyCircuit
	}, "the broker's circuit")
	require.Contains(t, story(t, db, id).Reasons[0].Text, "circuit of the broker is")

	// A topic's, as an instance reports it.
	db.exec(t, `DELETE FROM outbox.instance`)
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('reported')`)
	db.exec(t, `INSERT INTO outbox.lease (pipeline, shard, owner) SELECT 'reported', g, 'alive' FROM generate_series(0, 63) g`)
	db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b) SELECT 'reported', array_agg(g::smallint), '', '3:3:'::pg_snapshot, 0, '3'::xid8 FROM generate_series(0, 63) g`)
	db.exec(t, `INSERT INTO outbox.instance (name, pipelines, report, expires_at) VALUES ('alive', '{reported}', '{"reported": {"topics": {"t": "open"}}}', clock_timestamp() + interval '1 hour')`)
	list := explained(t, db, id).Events[0].Pipelines
	require.Len(t, list, 2)
	require.Equal(t, "reported", list[0].Pipeline)
	require.Equal(t, []string{WhyCircuit}, kinds(list[0].Reasons))
	require.Contains(t, list[0].Reasons[0].Text, `topic "t" is open in alive`)
}

// All is well, and it takes its time.
func TestExplainInLine(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p, called, let := slowTopic("t")
	defer let()
	running(t, newRelay(t, db.relay, config(p)))
	id := db.writeID(t, "k")
	<-called
	s := story(t, db, id)
	require.Equal(t, StoryWaiting, s.State)
	require.Equal(t, []string{WhyInLine}, kinds(s.Reasons))
	let()
	eventually(t, func() bool { return story(t, db, id).State == StoryPublished }, "published")
}

func TestExplainParked(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	bad := db.newID(t)
	p := &recorder{answer: failing(func(m brokers.Message) error {
		if m.ID == bad {
			return errBad
		}
		return nil
	})}
	r := parkingRelay(t, db, config(p))
	stop := running(t, r)
	_, err := db.writer.Exec(t.Context(), insertID, bad, "k")
	require.NoError(t, err)
	behind := db.writeID(t, "k")
	eventually(t, func() bool { return db.parkedStates(t) == "secret dead, secret blocked" }, "parked")
	require.NoError(t, stop())

	dead := story(t, db, bad)
	require.Equal(t, stateDead, dead.State)
	require.Equal(t, []string{WhyFailed}, kinds(dead.Reasons))
	require.Contains(t, dead.Reasons[0].Text, "too large")
	require.Contains(t, dead.Reasons[0].Cure, "relay dlq redrive --n 1")
	require.Nil(t, dead.Parked.Payload)

	blocked := story(t, db, behind)
	require.Equal(t, stateBlocked, blocked.State)
	require.NotNil(t, blocked.Behind)
	require.Equal(t, bad, blocked.Behind.EventID)
	require.Equal(t, []string{WhyParkedKey}, kinds(blocked.Reasons))
	require.Contains(t, blocked.Reasons[0].Text, bad)

	// An event that no relay has read yet will wait behind them too.
	late := story(t, db, db.writeID(t, "k"))
	require.Equal(t, []string{WhyNoOwner, WhyParkedKey}, kinds(late.Reasons))
	require.Equal(t, StoryWaiting, late.State)

	db.exec(t, `UPDATE outbox.parked SET state = 'retrying', next_attempt_at = clock_timestamp() + interval '1 hour', unanswered = true WHERE n = 1`)
	retrying := story(t, db, bad)
	require.Equal(t, stateRetrying, retrying.State)
	require.Equal(t, []string{WhyFailed, WhyUnanswered}, kinds(retrying.Reasons))
	require.Contains(t, retrying.Reasons[0].Text, "the next one is due at")

	_, err = Discard(t.Context(), db.relay, "", ParkedFilter{EventID: bad}, ParkedAction{By: "ann", Reason: "test order"})
	require.NoError(t, err)
	discarded := story(t, db, bad)
	require.Equal(t, stateDiscarded, discarded.State)
	require.Contains(t, discarded.Reasons[0].Text, "ann discarded it")
	require.Contains(t, discarded.Reasons[0].Text, "test order")

	// The copies outlive the log.
	db.exec(t, `TRUNCATE outbox.event`)
	e := explained(t, db, behind)
	require.Len(t, e.Events, 1)
	require.Nil(t, e.Events[0].Log)
	require.NotEmpty(t, e.Events[0].Pipelines[0].Reasons)
}
