package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

func status(t *testing.T, db *database) Status {
	t.Helper()
	st, err := ReadStatus(t.Context(), db.relay, "")
	require.NoError(t, err)
	return st
}

// backlog is what status says of the pipeline "test".
func backlog(t *testing.T, db *database) PipelineStatus {
	t.Helper()
	for _, p := range status(t, db).Pipelines {
		if p.Name == "test" {
			return p
		}
	}
	t.Fatal("no pipeline test")
	return PipelineStatus{}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	empty := status(t, db)
	require.Empty(t, empty.Pipelines)
	require.Len(t, empty.Slots, slots)

	r := newRelay(t, db.relay, config(&recorder{}))
	stop := running(t, r)
	db.write(t, "k", "1")
	eventually(t, func() bool { return r.Stats().Pipelines[0].Published == 1 && backlog(t, db).Backlog == 0 }, "published and stored")
	st := status(t, db)
	require.Len(t, st.Pipelines, 1)
	p := st.Pipelines[0]
	require.True(t, p.BacklogExact)
	require.Zero(t, p.OldestUnsentSeconds)
	require.Zero(t, p.Unowned)
	require.Len(t, st.Instances, 1)
	require.Equal(t, []Owner{{Instance: st.Instances[0].Name, Shards: 64, Live: true}}, p.Owners)
	require.True(t, st.Instances[0].Live)
	require.InDelta(t, 12.5, st.Instances[0].ExpiresInSeconds, 5)
	slot := st.Slots[db.slot(t)]
	require.True(t, slot.Current)
	require.EqualValues(t, 1, slot.Rows)
	require.Positive(t, slot.Bytes)
	_, err := json.Marshal(st)
	require.NoError(t, err)

	require.NoError(t, stop())
	db.write(t, "k", "2")
	db.old(t, db.slot(t))
	st = status(t, db)
	p = st.Pipelines[0]
	require.EqualValues(t, 1, p.Backlog)
	require.Greater(t, p.OldestUnsentSeconds, (300 * 24 * time.Hour).Seconds())
	require.Equal(t, 64, p.Unowned)
	require.Empty(t, st.Instances)
}

// A relay that was killed is shown with what it holds until somebody takes over.
func TestStatusShowsPendingTakeover(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	running(t, r)
	eventually(t, r.owns, "started")
	db.exec(t, `UPDATE outbox.instance SET expires_at = clock_timestamp() - interval '3 s'`)
	st := status(t, db)
	require.False(t, st.Instances[0].Live)
	require.InDelta(t, -3, st.Instances[0].ExpiresInSeconds, 2)
	require.False(t, st.Pipelines[0].Owners[0].Live)
	require.Equal(t, 64, st.Pipelines[0].Unowned)
}

// Parked events are counted, and keep the pipeline from being dropped.
func TestStatusCountsParked(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('test'), ('other')`)
	require.True(t, backlog(t, db).Parked.Exact)
	db.exec(t, `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, state, blocks, parked_at)
SELECT 'test', outbox.uuid_v7(), 't', 't', g::text, 'x', '/', now(), (ARRAY['dead', 'blocked', 'retrying', 'discarded', 'dead'])[1 + g % 5], false, now() - interval '1 hour'
FROM generate_series(1, 50) g`)
	p := backlog(t, db).Parked
	require.InDelta(t, 3600, p.OldestSeconds, 60)
	p.OldestSeconds = 0
	require.Equal(t, ParkedStatus{Dead: 20, Blocked: 10, Retrying: 10, Exact: true}, p)
	db.exec(t, `UPDATE outbox.parked SET blocks = state <> 'discarded', key = 'k' || n % 3`)
	require.EqualValues(t, 3, backlog(t, db).Parked.BlockedKeys)

	require.ErrorIs(t, DropPipeline(t.Context(), db.relay, "", "test", DropOptions{}), ErrPipelineParked)
	require.NoError(t, DropPipeline(t.Context(), db.relay, "", "other", DropOptions{}))
	require.NoError(t, DropPipeline(t.Context(), db.relay, "", "test", DropOptions{Force: true}))
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.parked`))
}

// What the backlog counts is exactly what a relay would publish: events that
// committed late and the rest of a batch included.
func TestBacklogIsWhatIsNotPassed(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	cfg := config(p)
	db.write(t, "k", "1")
	late, doomed := begin(t, db), begin(t, db)
	for i := range 5 {
		txWrite(t, late, fmt.Sprint(i), "late")
		txWrite(t, doomed, "k", "doomed")
	}
	db.write(t, "k", "2")
	stop := running(t, newRelay(t, db.relay, cfg))
	eventually(t, func() bool { return len(p.messages()) == 2 }, "published")
	require.NoError(t, stop())
	require.Zero(t, backlog(t, db).Backlog, "open transactions are nobody's backlog")
	require.NoError(t, doomed.Rollback(t.Context()))
	require.NoError(t, late.Commit(t.Context()))
	require.EqualValues(t, 5, backlog(t, db).Backlog)
	for range 7 {
		db.write(t, "k", "new")
	}
	require.EqualValues(t, 12, backlog(t, db).Backlog)

	// Stop in the middle of the batch, with shards at different positions.
	r := newRelay(t, db.relay, cfg)
	r.tune.pageRows = 2
	s := byHand(t, r)
	pr, err := s.probe(t.Context())
	require.NoError(t, err)
	left := int64(12)
	groups := map[position][]int16{}
	for shard, sp := range s.progress.shards {
		groups[sp.at] = append(groups[sp.at], shard)
	}
	for at, shards := range groups {
		for _, half := range [][]int16{shards[:len(shards)/2], shards[len(shards)/2:]} {
			page, err := s.page(t.Context(), at.begin(pr), half)
			require.NoError(t, err)
			s.progress.advance(half, page.to, true)
			left -= int64(len(page.events))
		}
	}
	_, err = s.flush(t.Context(), true)
	require.NoError(t, err)
	got := backlog(t, db)
	require.Less(t, left, int64(12))
	require.Equal(t, left, got.Backlog)
	require.Greater(t, got.Positions, 1)
	require.True(t, got.BacklogExact)
}

// A large backlog is not counted through.
func TestLargeBacklogIsBounded(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	stop := running(t, newRelay(t, db.relay, config(&recorder{})))
	eventually(t, func() bool {
		return scan[bool](t, db.admin, `SELECT EXISTS (SELECT FROM outbox.lease WHERE owner <> '')`)
	}, "registered")
	require.NoError(t, stop())
	db.exec(t, `INSERT INTO outbox.event (topic, key, type, source) SELECT 't', g::text, 'x', '/' FROM generate_series(1, 50000) g`)
	p := backlog(t, db)
	require.False(t, p.BacklogExact)
	require.InDelta(t, 50_000, p.Backlog, 500)
	require.Positive(t, p.OldestUnsentSeconds)
}

// What the filter leaves out is not waited for: neither counted nor estimated, and
// not the oldest.
func TestBacklogKnowsTheFilter(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	filtered := Pipeline{Name: "test", To: &recorder{}, Filter: Filter{Topics: []string{"a", "b"}, Types: []string{"x"}}}
	r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{filtered}})
	stop := running(t, r)
	eventually(t, r.owns, "registered")
	late := begin(t, db)
	for _, topic := range []string{"a", "c"} {
		_, err := late.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source) VALUES ($1, 'k', 'x', '/')`, topic)
		require.NoError(t, err)
	}
	db.writeTo(t, "b", "x", "1")
	eventually(t, func() bool { return r.Stats().Pipelines[0].Published == 1 && r.caughtUp() }, "published")
	require.NoError(t, stop())
	require.NoError(t, late.Commit(t.Context()))
	require.EqualValues(t, 1, backlog(t, db).Backlog, "late ones")

	db.writeTo(t, "c", "x", "2")
	db.exec(t, `UPDATE outbox.event SET created_at = now() - interval '1 hour' WHERE topic = 'c'`)
	db.writeTo(t, "a", "y", "3")
	db.writeTo(t, "a", "x", "4")
	p := backlog(t, db)
	require.EqualValues(t, 2, p.Backlog)
	require.True(t, p.BacklogExact)
	require.Less(t, p.OldestUnsentSeconds, 1800.0)

	db.exec(t, `INSERT INTO outbox.event (topic, key, type, source) SELECT (ARRAY['a', 'c', 'd', 'e'])[1 + g % 4], g::text, 'x', '/' FROM generate_series(1, 40000) g`)
	p = backlog(t, db)
	require.False(t, p.BacklogExact)
	require.InDelta(t, 10_000, p.Backlog, 500)
}

func TestStatusWithoutATable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	_, err := ReadStatus(t.Context(), db.relay, "elsewhere")
	require.ErrorIs(t, err, ErrNotMigrated)
	_, err = ReadStatus(t.Context(), db.relay, "No-Schema")
	require.ErrorContains(t, err, "is not a schema name")
	require.ErrorIs(t, DropPipeline(t.Context(), db.relay, "elsewhere", "x", DropOptions{}), ErrNotMigrated)
}

// Circuits and rates are in the memory of relays; the status of another process
// knows them from heartbeats. What is closed is not written at all.
func TestStatusShowsCircuits(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var mu sync.Mutex
	bad := map[string]error{}
	fail := func(topic string, err error) {
		mu.Lock()
		defer mu.Unlock()
		bad[topic] = err
	}
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		mu.Lock()
		defer mu.Unlock()
		results := make([]error, len(msgs))
		for i, m := range msgs {
			results[i] = bad[m.Topic]
		}
		return results
	}}
	cfg := config(p)
	cfg.Lease = time.Second // a heartbeat every third of it
	r := newRelay(t, db.relay, cfg)
	stop := running(t, r)
	eventually(t, r.owns, "registered")
	db.write(t, "k", "1")
	eventually(t, func() bool { return backlog(t, db).PublishedPerSecond > 0 }, "a rate")
	require.Empty(t, backlog(t, db).Circuits)
	require.NotContains(t, scan[string](t, db.admin, `SELECT report::text FROM outbox.instance`), "circuit", "nothing to say")

	for i := range 12 {
		topic := fmt.Sprintf("bad%02d", i)
		fail(topic, &brokers.Error{Class: brokers.ClassDestination, Topic: topic, Err: errors.New("no such topic")})
		db.writeTo(t, topic, "x", "1")
	}
	eventually(t, func() bool { return backlog(t, db).MoreCircuits == 2 }, "topics")
	st := backlog(t, db).Circuits
	require.Len(t, st, 10)
	require.Equal(t, "bad03", st[3].Topic)
	require.NotEqual(t, "closed", st[3].State)
	require.Contains(t, st[3].Instance, "/")

	fail("t", &brokers.Error{Class: brokers.ClassUnavailable, Err: errors.New("away")})
	db.write(t, "k", "2")
	eventually(t, func() bool {
		list := backlog(t, db).Circuits
		return len(list) > 0 && list[0].Topic == "" && list[0].State != "closed"
	}, "the broker")
	fail("t", nil)
	eventually(t, func() bool {
		list := backlog(t, db).Circuits
		return len(list) > 0 && list[0].Topic != ""
	}, "the broker is back")
	require.NoError(t, stop())
	require.Empty(t, backlog(t, db).Circuits, "nobody runs")
}
