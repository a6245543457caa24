package relay

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// passed lets the pipeline "test" publish everything that is there.
func (db *database) passed(t testing.TB) {
	t.Helper()
	r := newRelay(t, db.relay, config(&recorder{}))
	stop := running(t, r)
	eventually(t, func() bool {
		return r.caughtUp() && r.Stats().Pipelines[0].Published >= uint64(scan[int](t, db.admin, `SELECT count(*) FROM outbox.event`))
	}, "published")
	require.NoError(t, stop())
}

func replayTo(t testing.TB, p brokers.Publisher) ReplayConfig {
	return ReplayConfig{Pipeline: Pipeline{Name: "test", To: p}, Reason: "a test", RequestedBy: "me", Rate: 100_000,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func TestReplayFilters(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 60 {
		_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ($1, $2, $3, '/', convert_to($4, 'UTF8'))`,
			string("ab"[i%2]), string("klm"[i%3]), string("wxyz"[i%4]), fmt.Sprint(i))
		require.NoError(t, err)
	}
	db.exec(t, `UPDATE outbox.event SET created_at = '2026-01-01T00:00:00Z'::timestamptz + (convert_from(payload, 'UTF8')::int * interval '1 minute')`)
	db.passed(t)
	minute := func(n int) time.Time { return time.Date(2026, 1, 1, 0, n, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		where ReplayFilter
		own   Filter
		want  func(i int) bool
	}{
		"everything": {want: func(int) bool { return true }},
		"time":       {where: ReplayFilter{From: minute(10), Until: minute(20)}, want: func(i int) bool { return i >= 10 && i < 20 }},
		"from":       {where: ReplayFilter{From: minute(50)}, want: func(i int) bool { return i >= 50 }},
		"keys":       {where: ReplayFilter{Keys: []string{"k", "m"}}, want: func(i int) bool { return i%3 != 1 }},
		"types":      {where: ReplayFilter{Types: []string{"x"}}, want: func(i int) bool { return i%4 == 1 }},
		"topics":     {where: ReplayFilter{Topics: []string{"b"}}, want: func(i int) bool { return i%2 == 1 }},
		"all of it": {
			where: ReplayFilter{From: minute(30), Keys: []string{"l"}, Types: []string{"y"}, Topics: []string{"a"}},
			want:  func(i int) bool { return i >= 30 && i%3 == 1 && i%4 == 2 },
		},
		"nothing":    {where: ReplayFilter{Keys: []string{"none"}}, want: func(int) bool { return false }},
		"pipeline's": {own: Filter{Topics: []string{"a"}, Types: []string{"w"}}, want: func(i int) bool { return i%4 == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, total := []string{}, int64(0)
			for i := range 60 {
				if c.want(i) {
					want = append(want, fmt.Sprint(i))
					total++
				}
			}
			p := &recorder{}
			cfg := replayTo(t, p)
			cfg.Where, cfg.Pipeline.Filter = c.where, c.own
			cfg.Rate = 28 // pages of 7
			if len(want) > 20 {
				cfg.Rate = 800
			}
			got, err := Replay(t.Context(), db.relay, cfg)
			require.NoError(t, err)
			require.Equal(t, want, p.payloads())
			require.Equal(t, total, got.Published)
			for _, m := range p.messages() {
				require.Equal(t, got.ID, m.Headers[HeaderReplayID], "marked")
			}

			dry := dryRun(t, db, cfg, total)
			require.True(t, dry.Oldest.Equal(minute(0)))
			require.Len(t, p.messages(), len(want), "and publishes nothing")
		})
	}
}

// dryRun must count what the replay has published.
func dryRun(t *testing.T, db *database, cfg ReplayConfig, events int64) ReplayResult {
	t.Helper()
	cfg.DryRun, cfg.Reason = true, ""
	dry, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Empty(t, dry.ID)
	for _, n := range dry.Counts {
		events -= n.Events
	}
	require.Zero(t, events, "%v", dry.Counts)
	return dry
}

// What the pipeline has not published, or has parked, would overtake earlier events
// of its key. What commits after the beginning is not part of the replay.
func TestReplayLeavesOutWhatWasNotPublished(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 6 {
		db.write(t, "k", fmt.Sprint(i))
	}
	open := begin(t, db)
	txWrite(t, open, "k", "open")
	db.write(t, "k", "6")
	db.passed2(t, 7)
	park := `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, state, blocks)
SELECT 'test', event_id, topic, topic, key, type, source, now(), $2, true FROM outbox.event WHERE convert_from(payload, 'UTF8') = $1`
	db.exec(t, park, "2", "dead")
	db.exec(t, park, "3", "discarded")
	db.write(t, "k", "unsent")

	p := &recorder{}
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		if call == 0 {
			require.NoError(t, open.Commit(t.Context()))
			db.write(t, "k", "new")
		}
		return make([]error, len(msgs))
	}
	cfg := replayTo(t, p)
	cfg.Rate = 8 // pages of 2
	_, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1", "4", "5", "6"}, p.payloads())

	// A destination that no pipeline is named after has published nothing itself.
	other := &recorder{}
	cfg.To = &Pipeline{Name: "other", To: other, Topic: func(string) string { return "elsewhere" }}
	cfg.Rate = 1000
	late := begin(t, db)
	txWrite(t, late, "k", "late")
	_, err = Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "open", "6", "unsent", "new"}, other.payloads())
	require.Equal(t, "elsewhere", other.messages()[0].Topic)
	require.NoError(t, late.Rollback(t.Context()))
}

// passed2 is passed where not all rows can be seen.
func (db *database) passed2(t testing.TB, n int) {
	t.Helper()
	p := &recorder{}
	stop := running(t, newRelay(t, db.relay, config(p)))
	eventually(t, func() bool { return len(p.messages()) == n }, "published")
	require.NoError(t, stop())
}

func TestReplayIsPaced(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 60 {
		db.write(t, "k", fmt.Sprint(i))
	}
	db.passed(t)
	p := &recorder{}
	cfg := replayTo(t, p)
	cfg.Rate = 40
	var told []ReplayProgress
	cfg.Progress = func(p ReplayProgress) { told = append(told, p) }
	began := time.Now()
	_, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Len(t, p.messages(), 60)
	require.Greater(t, time.Since(began), 1200*time.Millisecond, "60 events, of which 10 at once, at 40 a second")
	require.GreaterOrEqual(t, len(told), 2)
	require.Positive(t, told[0].Remaining)
	last := told[len(told)-1]
	require.EqualValues(t, 60, last.Published)
	require.InDelta(t, 1, last.Part, 1e-9)
	require.Less(t, last.Rate, 60.0)
}

// While the broker fails at random the order of each key holds.
func TestReplayKeepsTheOrderThroughFailures(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	want := map[string]int{}
	for i := range 200 {
		key := fmt.Sprint("key", i%7)
		want[key]++
		db.write(t, key, fmt.Sprint(want[key]))
	}
	db.passed(t)
	var h history
	p := &recorder{}
	p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		results := make([]error, len(msgs))
		held := map[string]bool{}
		for i, m := range msgs {
			switch {
			case held[m.Key]:
				results[i] = brokers.ErrHeld
			case (call*31+i*17)%5 == 0:
				results[i], held[m.Key] = errAway, true
			default:
				h.add([]brokers.Message{m})
			}
		}
		return results
	}
	cfg := replayTo(t, p)
	cfg.Rate = 200
	_, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.Empty(t, h.violations(want, true))
}

// A replay takes nothing from a live relay: that publishes what comes, once and
// unmarked, and its slots can be truncated behind the replay.
func TestReplayBesideALiveRelay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	live, again := &recorder{}, &recorder{}
	r := newRelay(t, db.relay, config(live))
	running(t, r)
	for i := range 50 {
		db.write(t, "k", fmt.Sprint(i))
	}
	stored := func() bool {
		return scan[bool](t, db.admin, `SELECT coalesce(min(h), 0) >= (SELECT max(id) FROM outbox.event) FROM (
SELECT DISTINCT ON (q.sh) greatest(h, c) h FROM outbox.position p, unnest(shards) q(sh) ORDER BY q.sh, n DESC) l`)
	}
	eventually(t, func() bool { return len(live.messages()) == 50 && stored() }, "backlog")
	again.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
		db.write(t, "k", fmt.Sprint(50+call))
		return make([]error, len(msgs))
	}
	cfg := replayTo(t, again)
	cfg.Rate = 100 // pages of 25
	got, err := Replay(t.Context(), db.relay, cfg)
	require.NoError(t, err)
	require.EqualValues(t, 50, got.Published)
	eventually(t, func() bool { return len(live.messages()) == 52 }, "live")
	for i, m := range live.messages() {
		require.Equal(t, fmt.Sprint(i), string(m.Payload))
		require.NotContains(t, m.Headers, HeaderReplayID)
	}
}

func TestReplayConfigNamesTheField(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for field, change := range map[string]func(*ReplayConfig){
		"ReplayConfig.Reason":          func(c *ReplayConfig) { c.Reason = "" },
		"ReplayConfig.Rate":            func(c *ReplayConfig) { c.Rate = -1 },
		"ReplayConfig.Where.Until":     func(c *ReplayConfig) { c.Where = ReplayFilter{From: now, Until: now} },
		"ReplayConfig.Where.Types[0]":  func(c *ReplayConfig) { c.Where.Types = []string{""} },
		"ReplayConfig.Where.Topics[0]": func(c *ReplayConfig) { c.Where.Topics = []string{""} },
		"ReplayConfig.DryRun":          func(c *ReplayConfig) { c.DryRun, c.Resume = true, "x" },
	} {
		cfg := replayTo(t, &recorder{})
		change(&cfg)
		_, err := Replay(t.Context(), nil, cfg)
		require.ErrorContains(t, err, field)
	}
}

// A pipeline in the middle of a batch has passed the part before the cursor.
func TestReplayOfABatchUnderWay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('test')`)
	for i := range 4 {
		db.write(t, "k", fmt.Sprint(i))
	}
	db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b, s2, h2, b2, c)
SELECT 'test', array_agg(g::smallint), '', '3:3:', 0, '3', pg_current_snapshot(), (SELECT max(id) FROM outbox.event),
  pg_snapshot_xmax(pg_current_snapshot()), (SELECT min(id) + 1 FROM outbox.event) FROM generate_series(0, 63) g`)
	p := &recorder{}
	_, err := Replay(t.Context(), db.relay, replayTo(t, p))
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1"}, p.payloads())
}
