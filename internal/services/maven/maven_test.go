package maven

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVerifyRefusesWhatTheListDoesNotSay(t *testing.T) {
	const sums = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.jar\n"
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	require.ErrorContains(t, verify(dir, []byte(sums)), "a.jar did not come")
	write("a.jar", "abc")
	require.NoError(t, verify(dir, []byte(sums)))
	write("b.jar", "more")
	require.ErrorContains(t, verify(dir, []byte(sums)), "b.jar is not in the list")
	require.NoError(t, os.Remove(filepath.Join(dir, "b.jar")))
	write("a.jar", "changed")
	require.ErrorContains(t, verify(dir, []byte(sums)), "a.jar has SHA-256")
}

func TestJavaVersion(t *testing.T) {
	require.Equal(t, 17, major(`openjdk version "17.0.15" 2025-04-15`))
	require.Equal(t, 1, major(`java version "1.8.0_202"`))
	require.Equal(t, 21, major(`openjdk version "21" 2023-09-19`))
	require.Zero(t, major("no version"))
}
