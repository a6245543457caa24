package model

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	s, err := ParseSnapshot("10:20:10,14,15")
	require.NoError(t, err)
	require.Equal(t, Snapshot{Xmin: 10, Xmax: 20, Running: []uint64{10, 14, 15}}, s)
	require.True(t, s.Sees(9) && s.Sees(13) && s.Sees(19))
	require.False(t, s.Sees(10) || s.Sees(14) || s.Sees(20))
	s, err = ParseSnapshot("3:3:")
	require.NoError(t, err)
	require.Equal(t, Snapshot{Xmin: 3, Xmax: 3}, s)
	for _, bad := range []string{"", "x", "3:", "3:x:", "3:5:a", "3:5:4,"} {
		_, err = ParseSnapshot(bad)
		require.Error(t, err, bad)
	}
}
