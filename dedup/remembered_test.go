package dedup_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
)

func TestRemembered(t *testing.T) {
	t.Parallel()
	pool := database(t, "")
	established(t, pool, "inbox", "a")
	a := store(t, pool, dedup.Config{Consumer: "a"})
	b := store(t, pool, dedup.Config{Consumer: "b", TrustedSources: []string{}})
	fresh, foreign, old := keyAtNow(), dedup.Key{Source: "/a", ID: "order 17"}, keyAt(time.Now().Add(-10*day))
	require.Equal(t, dedup.Claimed, claim(t, pool, a, fresh))
	require.Equal(t, dedup.Claimed, claim(t, pool, b, fresh), "an untrusted source: by the day of receipt")
	require.Equal(t, dedup.Claimed, claim(t, pool, b, foreign))

	for _, c := range []struct {
		key  dedup.Key
		a, b dedup.Recollection
	}{
		{fresh, dedup.Recollection{Handled: true}, dedup.Recollection{Handled: true}},
		{foreign, dedup.Recollection{}, dedup.Recollection{Handled: true}},
		{old, dedup.Recollection{Forgotten: true}, dedup.Recollection{}},
		{keyAtNow(), dedup.Recollection{}, dedup.Recollection{}},
		{dedup.Key{Source: "/b", ID: fresh.ID}, dedup.Recollection{}, dedup.Recollection{}},
	} {
		got, err := dedup.Remembered(t.Context(), pool, "", c.key)
		require.NoError(t, err)
		c.a.Consumer, c.b.Consumer, c.a.WindowDays, c.b.WindowDays = "a", "b", 7, 7
		require.Equal(t, []dedup.Recollection{c.a, c.b}, got, c.key)
	}
	_, err := dedup.Remembered(t.Context(), pool, "No", fresh)
	require.ErrorContains(t, err, `schema "No"`)
	_, err = dedup.Remembered(t.Context(), pool, "elsewhere", fresh)
	require.Error(t, err)
}
