package inbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// Who waits is counted by state, for each consumer; who has nothing that waits is
// there with zeros, so that a metric does not vanish when all is well.
func TestDeadLettersAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bury(w.config("inventory"), message("a", 1), message("b", 2))
	w.exec(`INSERT INTO inbox.consumer (name, window_days) SELECT 'idle', window_days FROM inbox.consumer WHERE name = 'inventory'`)
	counted := func() []inbox.DeadCount {
		list, err := inbox.CountDeadLetters(t.Context(), w.pool, "")
		require.NoError(t, err)
		return list
	}
	list := counted()
	require.Len(t, list, 2)
	require.Equal(t, inbox.DeadCount{Consumer: "idle", Exact: true}, list[0])
	require.Equal(t, "inventory", list[1].Consumer)
	require.EqualValues(t, 2, list[1].Dead)
	require.True(t, list[1].Exact)
	require.Positive(t, list[1].OldestSeconds)

	w.exec(`UPDATE inbox.dead SET state = 'blocked' WHERE key = 'a'`)
	w.exec(`UPDATE inbox.dead SET state = 'retrying' WHERE key = 'b'`)
	require.EqualValues(t, []int64{0, 1, 1}, []int64{counted()[1].Dead, counted()[1].Blocked, counted()[1].Retrying})
	w.exec(`UPDATE inbox.dead SET state = 'discarded'`)
	require.Equal(t, inbox.DeadCount{Consumer: "inventory", Exact: true}, counted()[1])

	_, err := inbox.CountDeadLetters(t.Context(), w.pool, "nowhere")
	require.ErrorIs(t, err, inbox.ErrNotMigrated)
}
