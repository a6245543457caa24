package relay

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExplainFilteredAndSkipped(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	before := db.writeID(t, "k")
	r := newRelay(t, db.relay, Config{Pipelines: []Pipeline{
		{Name: "test", To: &recorder{}, Filter: Filter{Types: []string{"another"}}},
		{Name: "late", To: &recorder{}, Start: Start{Now: true}},
	}})
	stop := running(t, r)
	eventually(t, func() bool {
		return scan[int](t, db.admin, `SELECT count(DISTINCT pipeline) FROM outbox.position`) == 2
	}, "registered")
	require.NoError(t, stop())
	list := explained(t, db, before).Events[0].Pipelines
	require.Len(t, list, 2)
	require.Equal(t, "late", list[0].Pipeline)
	require.Equal(t, StorySkipped, list[0].State)
	require.Equal(t, []string{WhyBegan}, kinds(list[0].Reasons))
	require.Equal(t, StoryFiltered, list[1].State)
	require.Contains(t, list[1].Reasons[0].Text, `types ["another"]`)
}

// Half of a batch has been published, late events among it, and shards stand at
// different positions: of each event it is known on which side it is.
func TestExplainInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	var ids []string
	late := begin(t, db)
	for i := range 3 {
		id := db.newID(t)
		_, err := late.Exec(t.Context(), insertID, id, fmt.Sprint("late", i))
		require.NoError(t, err)
		ids = append(ids, id)
	}
	ids = append(ids, db.writeID(t, "first"))
	stop := running(t, newRelay(t, db.relay, config(p)))
	eventually(t, func() bool { return len(p.messages()) == 1 }, "published")
	require.NoError(t, stop())
	sent := map[string]bool{p.messages()[0].ID: true}
	require.NoError(t, late.Commit(t.Context()))
	for i := range 9 {
		ids = append(ids, db.writeID(t, fmt.Sprint("k", i)))
	}

	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows = 2
	s := byHand(t, r)
	pr, err := s.probe(t.Context())
	require.NoError(t, err)
	groups := map[position][]int16{}
	for shard, sp := range s.progress.shards {
		groups[sp.at] = append(groups[sp.at], shard)
	}
	for at, shards := range groups {
		for _, half := range [][]int16{shards[:len(shards)/2], shards[len(shards)/2:]} {
			page, err := s.page(t.Context(), at.begin(pr), half)
			require.NoError(t, err)
			s.progress.advance(half, page.to, true)
			for _, it := range page.events {
				sent[it.msg.ID] = true
			}
		}
	}
	_, err = s.flush(t.Context(), true)
	require.NoError(t, err)
	require.Greater(t, len(sent), 1)
	require.Less(t, len(sent), len(ids))
	for _, id := range ids {
		require.Equal(t, sent[id], story(t, db, id).State == StoryPublished, id)
	}
}
