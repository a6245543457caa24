package archtest

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	firstCell = regexp.MustCompile("(?m)^\\| ([^|\n]*`[^|\n]*) \\|")
	codeName  = regexp.MustCompile("`([^`]+)`")
)

// TestTheMapIsTrue: each folder with Go code is on the map in docs/architecture.md,
// itself or one above it, and each file of cmd/relay; what is on it is there, once.
func TestTheMapIsTrue(t *testing.T) {
	text := readFile(t, "docs/architecture.md")
	const files, decisions = "\n### The files of cmd/relay\n", "\n## Decisions"
	folders := map[string]bool{}
	for _, name := range namesIn(t, between(text, "\n## Where each thing lives\n", files)) {
		folder := strings.TrimSuffix(name, "/")
		require.False(t, folders[folder], "%s is on the map twice", folder)
		folders[folder] = true
		info, err := os.Stat(filepath.Join(root, folder))
		require.NoError(t, err)
		require.True(t, info.IsDir(), folder)
	}
	patterns := namesIn(t, between(text, files, decisions))
	found := map[string]int{}
	walk(t, func(file string) {
		if !strings.HasSuffix(file, ".go") || file == path.Base(file) {
			return
		}
		require.True(t, onMap(folders, path.Dir(file)), "docs/architecture.md: the map does not have %s", path.Dir(file))
		if path.Dir(file) != "cmd/relay" || strings.HasSuffix(file, "_test.go") {
			return
		}
		rows := 0
		for _, p := range patterns {
			if ok, err := path.Match(p, path.Base(file)); err == nil && ok {
				rows, found[p] = rows+1, found[p]+1
			}
		}
		require.Equal(t, 1, rows, "docs/architecture.md: rows of the files of cmd/relay that have %s", file)
	})
	for _, p := range patterns {
		require.NotZero(t, found[p], "docs/architecture.md: no file of cmd/relay is %s", p)
	}
}

func between(text, from, to string) string {
	_, text, _ = strings.Cut(text, from)
	text, _, _ = strings.Cut(text, to)
	return text
}

// namesIn are those in the first column of tables.
func namesIn(t *testing.T, text string) (names []string) {
	t.Helper()
	for _, row := range firstCell.FindAllStringSubmatch(text, -1) {
		for _, m := range codeName.FindAllStringSubmatch(row[1], -1) {
			names = append(names, m[1])
		}
	}
	require.NotEmpty(t, names)
	return names
}

func onMap(folders map[string]bool, folder string) bool {
	for ; folder != "."; folder = path.Dir(folder) {
		if folders[folder] {
			return true
		}
	}
	return false
}
