package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func (db *database) writeTo(t testing.TB, topic, typ, payload string) {
	t.Helper()
	_, err := db.writer.Exec(t.Context(),
		`INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ($1, 'k', $2, '/test', convert_to($3, 'UTF8'))`, topic, typ, payload)
	require.NoError(t, err)
}

// Small windows and pages, so that every way through the reader is taken; late
// transactions among it.
func TestFilter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		filter Filter
		want   func(topic, typ string) bool
	}{
		"topics": {Filter{Topics: []string{"a", "c"}}, func(topic, _ string) bool { return topic != "b" }},
		"types":  {Filter{Types: []string{"x"}}, func(_, typ string) bool { return typ == "x" }},
		"both":   {Filter{Topics: []string{"a"}, Types: []string{"y"}}, func(topic, typ string) bool { return topic == "a" && typ == "y" }},
		"none":   {Filter{Topics: []string{"nobody"}}, func(string, string) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			p, all := &recorder{}, &recorder{}
			r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "test", To: p, Filter: c.filter}, {Name: "all", To: all}}})
			r.tune.filterIDs, r.tune.pageRows = 7, 3
			want := []string{}
			write := func(from, to int) {
				for i := from; i < to; i++ {
					topic, typ := string("abc"[i%3]), string("xy"[i/3%2])
					db.writeTo(t, topic, typ, fmt.Sprint(i))
					if c.want(topic, typ) {
						want = append(want, fmt.Sprint(i))
					}
				}
			}
			write(0, 60) // a backlog
			late := begin(t, db)
			for i := range 20 {
				topic, typ := string("abc"[i%3]), string("xy"[i/3%2])
				_, err := late.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ($1, 'late', $2, '/', convert_to($3, 'UTF8'))`,
					topic, typ, fmt.Sprint("late ", i))
				require.NoError(t, err)
			}
			stop := running(t, r)
			eventually(t, func() bool { return len(all.messages()) == 60 && len(p.messages()) >= len(want) }, "all")
			write(60, 90)
			eventually(t, func() bool { return len(all.messages()) == 90 && len(p.messages()) >= len(want) }, "all")
			require.NoError(t, late.Commit(t.Context()))
			for i := range 20 {
				if c.want(string("abc"[i%3]), string("xy"[i/3%2])) {
					want = append(want, fmt.Sprint("late ", i))
				}
			}
			eventually(t, func() bool { return len(all.messages()) == 110 && len(p.messages()) >= len(want) }, "late ones")
			write(90, 100)
			eventually(t, func() bool { return len(all.messages()) == 120 && len(p.messages()) >= len(want) }, "rest")
			eventually(t, func() bool {
				return scan[int](t, db.admin, `SELECT min(h) FROM (SELECT DISTINCT ON (q.sh) greatest(h, c) h FROM outbox.position p, unnest(shards) q(sh)
WHERE pipeline = 'test' ORDER BY q.sh, n DESC) l`) >= 100
			}, "what is left out is passed, and that is stored")
			require.NoError(t, stop())
			require.ElementsMatch(t, want, p.payloads()) // no order among topics
		})
	}
}

// A filtered pipeline keeps nothing from being truncated.
func TestFilteredEventsAreTruncated(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "test", To: &recorder{}, Filter: Filter{Topics: []string{"nobody"}}}}})
	running(t, r)
	first := db.slot(t)
	db.write(t, "k", "1")
	eventually(t, r.caughtUp, "started")
	db.old(t, first)
	require.NoError(t, r.retainOnce(t.Context()))
	eventually(t, func() bool {
		require.NoError(t, r.retainOnce(t.Context()))
		return db.inSlot(t, first) == 0
	}, "truncated")
}

func TestTopicsAreMapped(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	running(t, newRelay(t, db.relay, Config{Pipelines: []Pipeline{{
		Name: "test", To: p, Filter: Filter{Topics: []string{"a", "b", "c"}},
		Topic: func(topic string) string { return map[string]string{"a": "shop.one", "b": "shop.one"}[topic] },
	}}}))
	for i, topic := range []string{"a", "b", "c", "d", "a"} {
		db.writeTo(t, topic, "x", fmt.Sprint(i))
	}
	eventually(t, func() bool { return len(p.messages()) == 4 }, "published")
	var got []string
	for _, m := range p.messages() {
		got = append(got, m.Topic+" "+string(m.Payload))
	}
	slices.Sort(got) // no order among topics
	require.Equal(t, []string{"c 2", "shop.one 0", "shop.one 1", "shop.one 4"}, got)
}

// Now means: what commits after the registration, open transactions included.
func TestStartNow(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	db.write(t, "k", "old")
	open := begin(t, db)
	txWrite(t, open, "open", "open")
	cfg := Config{Pipelines: []Pipeline{{Name: "test", To: p, Start: Start{Now: true}}}}
	stop := running(t, newRelay(t, db.relay, cfg))
	registered := func() bool { return scan[bool](t, db.admin, `SELECT EXISTS (SELECT FROM outbox.pipeline)`) }
	eventually(t, registered, "registered")
	db.write(t, "k", "new")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "new")
	require.NoError(t, open.Commit(t.Context()))
	eventually(t, func() bool { return len(p.messages()) == 2 }, "open")
	require.NoError(t, stop())
	db.write(t, "k", "while away")
	running(t, newRelay(t, db.relay, cfg)) // known: Start no longer counts
	eventually(t, func() bool { return len(p.messages()) == 3 }, "goes on")
	require.Equal(t, []string{"new", "open", "while away"}, p.payloads())
}

// The stream moves from one publisher to another: split cleanly when the first is
// stopped before, overlapping but without a gap when it runs on.
func TestStartAtAnotherPipelinesPosition(t *testing.T) {
	t.Parallel()
	for name, overlap := range map[string]bool{"stopped before": false, "running on": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			from, to := &recorder{}, &recorder{}
			old := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "old", To: from}}})
			old.tune.pageRows = 5
			stopOld := running(t, old)
			ctx, stopWriting := context.WithCancel(t.Context())
			written := make(chan int, 1)
			go func() {
				n := 0
				defer func() { written <- n }()
				for ctx.Err() == nil {
					if _, err := db.writer.Exec(context.Background(), insert, "k", fmt.Sprint(n)); err != nil {
						t.Error(err)
						return
					}
					n++
				}
			}()
			eventually(t, func() bool {
				return len(from.messages()) > 50 && scan[bool](t, db.admin, `SELECT max(greatest(h, c)) > 0 FROM outbox.position WHERE pipeline = 'old'`)
			}, "the old one works, and has stored so")
			if !overlap {
				require.NoError(t, stopOld())
			}
			running(t, newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "new", To: to, Start: Start{Pipeline: "old"}}}}))
			eventually(t, func() bool { return len(to.messages()) > 50 }, "the new one works")
			require.NoError(t, stopOld())
			stopWriting()
			last := fmt.Sprint(<-written - 1)
			eventually(t, func() bool { list := to.payloads(); return list[len(list)-1] == last }, "caught up")

			sent, moved := from.payloads(), to.payloads()
			var first int
			_, err := fmt.Sscan(moved[0], &first)
			require.NoError(t, err)
			for i, payload := range moved {
				require.Equal(t, fmt.Sprint(first+i), payload, "no gap in the new one")
			}
			if overlap {
				require.LessOrEqual(t, first, len(sent), "no gap between the two")
				require.Positive(t, first, "not from the start")
			} else {
				require.Equal(t, len(sent), first, "a clean stop, a clean split")
			}
		})
	}
}

// A copy made in the middle of a batch stands in the middle of the batch.
func TestStartCopiesABatchUnderWay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.pipeline (name) VALUES ('old')`)
	for i := range 4 {
		db.write(t, "k", fmt.Sprint(i))
	}
	db.exec(t, `INSERT INTO outbox.position (pipeline, shards, owner, s, h, b, s2, h2, b2, c)
SELECT 'old', array_agg(g::smallint), '', '3:3:', 0, '3', pg_current_snapshot(), (SELECT max(id) FROM outbox.event),
  pg_snapshot_xmax(pg_current_snapshot()), (SELECT min(id) + 1 FROM outbox.event) FROM generate_series(0, 63) g`)
	p := &recorder{}
	running(t, newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "new", To: p, Start: Start{Pipeline: "old"}}}}))
	eventually(t, func() bool { return len(p.messages()) == 2 }, "the rest of the batch")
	require.Equal(t, []string{"2", "3"}, p.payloads())
}

// Until the other pipeline is there the new one waits and says why.
func TestStartWaitsForTheOtherPipeline(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "new", To: p, Start: Start{Pipeline: "old"}}}})
	running(t, r)
	eventually(t, func() bool {
		return strings.Contains(r.Stats().Pipelines[0].LastError, `start where pipeline "old" stands`)
	}, "waits")
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.pipeline`), "nothing half done")
	db.write(t, "k", "1")
	stop := running(t, newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "old", To: &recorder{}, Start: Start{Now: true}}}}))
	eventually(t, r.owns, "registered")
	require.NoError(t, stop())
	db.write(t, "k", "2")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published")
	require.Equal(t, []string{"2"}, p.payloads())
}

func TestDropPipeline(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	ctx := t.Context()
	p := &recorder{}
	stop := running(t, newRelay(t, db.relay, Config{Pipelines: []Pipeline{{Name: "gone", To: p}}}))
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published")
	require.ErrorIs(t, DropPipeline(ctx, db.relay, "", "none", DropOptions{}), ErrNoPipeline)
	require.ErrorIs(t, DropPipeline(ctx, db.relay, "", "gone", DropOptions{}), ErrPipelineHeld)
	require.NoError(t, stop())

	// The dropped pipeline was the one that held the slot.
	kept := &recorder{}
	r := newRelay(t, db.relay, config(kept))
	running(t, r)
	first := db.slot(t)
	db.write(t, "k", "2")
	eventually(t, func() bool { return len(kept.messages()) == 2 && r.caughtUp() }, "published")
	db.old(t, first)
	require.NoError(t, r.retainOnce(ctx)) // moves on
	storePast(t, db, r, first)
	require.NoError(t, r.reclaim(ctx, first))
	require.Equal(t, 2, db.inSlot(t, first), "held by the forgotten pipeline")

	require.NoError(t, DropPipeline(ctx, db.relay, "", "gone", DropOptions{}))
	list, err := Pipelines(ctx, db.relay, "")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "test", list[0].Name)
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position WHERE pipeline = 'gone'`))
	eventually(t, func() bool {
		require.NoError(t, r.reclaim(ctx, first))
		return db.inSlot(t, first) == 0
	}, "truncated")
}

// By force a live relay loses the pipeline. It does not come back by itself.
func TestDropPipelineByForce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	stop := running(t, r)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.owns() }, "published")
	require.NoError(t, DropPipeline(t.Context(), db.relay, "", "test", DropOptions{Force: true}))
	db.write(t, "k", "2") // published at most once more, its position is refused
	eventually(t, func() bool { return !r.owns() }, "lost")
	require.NoError(t, stop())
	require.LessOrEqual(t, len(p.messages()), 2)
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.pipeline`))
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`))
}
