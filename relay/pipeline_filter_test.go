package relay

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func topics(names ...string) Pipeline {
	return Pipeline{Name: "test", To: &recorder{}, Filter: Filter{Topics: names}}
}

// Two relays share a pipeline but not its filter: the second is refused before the
// first makes room for it. Negative control: without that, events are lost that
// only one of them publishes.
func TestAnotherFilterIsRefused(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"refused": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			one, two := &recorder{}, &recorder{}
			narrow, wide := topics("a"), topics("b", "a", "b")
			wide.To, narrow.To = one, two
			first := newRelay(t, db.relay, Config{Pipelines: []Pipeline{wide}})
			running(t, first)
			eventually(t, first.owns, "registered")
			second := newRelay(t, db.relay, Config{Pipelines: []Pipeline{narrow}})
			if broken {
				second.q.filter = `SELECT NULL::text WHERE $1 = ''`
				second.q.filterShare = `SELECT '{"topics": ["a"]}' WHERE $1 <> ''`
				running(t, second)
				eventually(t, second.owns, "shards are shared")
				for i := range 40 {
					_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source) VALUES ('b', $1, 't', '/')`, fmt.Sprint(i))
					require.NoError(t, err)
				}
				eventually(t, func() bool { return first.caughtUp() && second.caughtUp() && len(one.messages()) > 0 }, "caught up")
				require.Less(t, len(one.messages())+len(two.messages()), 40, "the control must lose events")
				return
			}
			err := second.Run(t.Context())
			var refused *FilterError
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, err, `pipeline "test" publishes topics ["a" "b"], configured is topics ["a"]`)
			require.ErrorContains(t, err, "relay pipeline filter test")
			require.True(t, fatal(err), "a person has to decide")
			require.Equal(t, 1, scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance`), "it has not joined")

			same := newRelay(t, db.relay, Config{Pipelines: []Pipeline{topics("a", "b")}})
			running(t, same)
			eventually(t, same.owns, "the same filter in other words")
		})
	}
}

func TestChangeFilter(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{topics("a")}})
	stop := running(t, r)
	eventually(t, r.owns, "registered")
	wide := topics("a", "b")
	require.ErrorIs(t, ChangeFilter(t.Context(), db.relay, "", "test", wide.Filter), ErrPipelineHeld)
	require.NoError(t, stop())
	require.ErrorIs(t, ChangeFilter(t.Context(), db.relay, "", "other", wide.Filter), ErrNoPipeline)
	require.ErrorContains(t, ChangeFilter(t.Context(), db.relay, "", "test", Filter{Types: []string{""}}), "Types[0]")
	require.NoError(t, ChangeFilter(t.Context(), db.relay, "", "test", wide.Filter))
	require.ErrorIs(t, r.Run(t.Context()), ErrFilterChanged)
	list, err := Pipelines(t.Context(), db.relay, "")
	require.NoError(t, err)
	require.Equal(t, wide.Filter, list[0].Filter)

	p := &recorder{}
	wide.To = p
	running(t, newRelay(t, db.relay, Config{Pipelines: []Pipeline{wide}}))
	db.writeTo(t, "b", "x", "1")
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published")
}

// An instance that has joined, and not looked at the filter yet, keeps it from being
// changed; one that has looked before it joined is refused when it begins.
func TestChangeFilterMeetsAStartingRelay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{topics("a")}})
	stop := running(t, r)
	eventually(t, r.owns, "registered")
	require.NoError(t, stop())

	tok, err := r.incarnation(t.Context())
	require.NoError(t, err)
	joined, err := r.join(t.Context(), tok)
	require.NoError(t, err)
	require.ErrorIs(t, ChangeFilter(t.Context(), db.relay, "", "test", Filter{}), ErrPipelineHeld)
	joined.leave(context.Background())

	change, err := db.relay.Begin(t.Context())
	require.NoError(t, err)
	_, err = change.Exec(t.Context(), inSchema(sqlFilterLock, "outbox"), "test")
	require.NoError(t, err)
	_, err = change.Exec(t.Context(), inSchema(sqlFilterChange, "outbox"), "test", "{}")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context()) }()
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	}, "the relay has joined and waits for the change")
	require.NoError(t, change.Commit(t.Context()))
	select {
	case err := <-ended:
		require.ErrorIs(t, err, ErrFilterChanged)
	case <-time.After(patience):
		t.Fatal("the relay goes on with another filter")
	}
}
