package inbox_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// Of each event it is known what became of it, consumer by consumer.
func TestSightings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, bad, behind := message("a", 1), message("b", 2), message("b", 3)
	w.bury(w.config("billing"), bad, behind)
	in := w.start(w.config("inventory"), insert("inventory"))
	w.publish(good)
	eventually(t, "handled", func() bool { return w.effects(good.ID) == 1 })
	require.NoError(t, in.end())

	seen := func(source, id string) map[string]string {
		list, err := inbox.Sightings(t.Context(), w.pool, "", source, id)
		require.NoError(t, err)
		states := map[string]string{}
		for _, s := range list {
			states[s.Consumer] = s.State
			require.Equal(t, s.State != inbox.SeenHandled && s.State != inbox.SeenNot, s.Letter != nil, s)
		}
		return states
	}
	require.Equal(t, inbox.SeenHandled, seen(source, good.ID)["inventory"])
	require.Equal(t, "dead", seen(source, bad.ID)["billing"])
	require.Equal(t, "blocked", seen(source, behind.ID)["billing"])
	nowhere := uuid.Must(uuid.NewV7()).String()
	require.Equal(t, map[string]string{"billing": inbox.SeenNot, "inventory": inbox.SeenNot}, seen(source, nowhere))
	require.Equal(t, map[string]string{"billing": "dead"}, seen("", bad.ID), "without the source")
	require.Empty(t, seen("", good.ID))
	require.Equal(t, inbox.SeenNot, seen("/another", good.ID)["inventory"], "its source is another")

	_, err := inbox.Discard(t.Context(), w.pool, "", inbox.DeadFilter{ID: bad.ID}, inbox.DeadAction{By: "ann", Reason: "test"})
	require.NoError(t, err)
	require.Equal(t, "discarded", seen(source, bad.ID)["billing"])
	w.exec(`UPDATE inbox.dead SET state = 'redriven' WHERE id = $1`, behind.ID)
	list, err := inbox.Sightings(t.Context(), w.pool, "", source, behind.ID)
	require.NoError(t, err)
	require.Equal(t, "billing", list[0].Consumer)
	require.Equal(t, inbox.SeenHandled, list[0].State)
	require.NotNil(t, list[0].Letter, "how it came to that")

	_, err = inbox.Sightings(t.Context(), w.pool, "elsewhere", source, good.ID)
	require.ErrorIs(t, err, inbox.ErrNotMigrated)
}
