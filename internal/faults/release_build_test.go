package faults

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A shallow clone may lack the previous release, and tests then do without. A whole one
// that lacks it is wrong about what the previous release is.
func TestReleaseThatTheCloneLacks(t *testing.T) {
	t.Parallel()
	whole, shallow := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "shallow")
	in := func(dir string, args ...string) string {
		out, err := git(t.Context(), dir, args...)
		require.NoError(t, err)
		return out
	}
	in(".", "init", "--quiet", whole)
	for _, message := range []string{"first", "second"} {
		in(whole, "-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "-m", message)
	}
	first := in(whole, "rev-parse", "HEAD~")
	in(".", "clone", "--quiet", "--depth=1", "file://"+whole, shallow)

	_, err := releaseSource(t.Context(), shallow, first)
	require.ErrorIs(t, err, ErrShallow)
	require.ErrorContains(t, err, "git fetch --unshallow")

	_, err = releaseSource(t.Context(), whole, "0123456789012345678901234567890123456789")
	require.ErrorContains(t, err, "whole history, but no such commit")
	require.NotErrorIs(t, err, ErrShallow)

	_, err = releaseSource(t.Context(), t.TempDir(), first)
	require.ErrorIs(t, err, ErrNoClone)
}
