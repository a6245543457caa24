package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w+)\(`)
	example  = regexp.MustCompile("(?s)```go\n.*?```") // has tests of the reader's own
	// "…" stands for any letters; after -run a part of a name will do.
	named   = regexp.MustCompile("(-run ['\"^]*|-fuzz ['\"^]*)?\\b((?:Test|Fuzz|Benchmark)[A-Z0-9…][A-Za-z0-9_…]*)")
	targets = regexp.MustCompile(`(?m)^([a-z-]+):`)
	made    = regexp.MustCompile("(?m)(?:^ {4}|`)(?:[A-Z_]+=\\S+ )*make ([a-z][a-z-]*)")
)

// TestDocumentsNameTestsThatExist: a promise whose test was renamed away has none.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	tests := declaredTests(t)
	for _, file := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(example.ReplaceAllString(readFile(t, file), ""), -1) {
			require.Truef(t, exists(tests, m[2], m[1] != ""), "%s names %s, but no test is called so", file, m[2])
		}
	}
}

func TestDocumentsNameTargetsThatExist(t *testing.T) {
	all := map[string]bool{}
	for _, m := range targets.FindAllStringSubmatch(readFile(t, "Makefile"), -1) {
		all[m[1]] = true
	}
	require.NotEmpty(t, all)
	for _, file := range documents(t) {
		for _, m := range made.FindAllStringSubmatch(readFile(t, file), -1) {
			require.Truef(t, all[m[1]], "%s says `make %s`, but the Makefile has no such target", file, m[1])
		}
	}
}

// exists reports that a test has the name, in which "…" stands for any letters.
func exists(tests []string, name string, part bool) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(name), "…", `\w*`)
	if !part {
		pattern = "^" + pattern + "$"
	}
	r := regexp.MustCompile(pattern)
	for _, test := range tests {
		if r.MatchString(test) {
			return true
		}
	}
	return false
}

// declaredTests are those of all modules, with any build tag.
func declaredTests(t *testing.T) (names []string) {
	t.Helper()
	walk(t, func(file string) {
		if !strings.HasSuffix(file, "_test.go") {
			return
		}
		for _, m := range declared.FindAllStringSubmatch(readFile(t, file), -1) {
			names = append(names, m[1])
		}
	})
	require.NotEmpty(t, names)
	return names
}

// documents are all but the log of changes, which may name what is gone.
func documents(t *testing.T) (files []string) {
	t.Helper()
	walk(t, func(file string) {
		if strings.HasSuffix(file, ".md") && file != "CHANGELOG.md" {
			files = append(files, file)
		}
	})
	require.Contains(t, files, "docs/architecture.md")
	return files
}

// walk calls f with each file's path below the repository's root.
func walk(t *testing.T, f func(file string)) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != ".":
			return fs.SkipDir
		case !entry.IsDir():
			f(path)
		}
		return nil
	}))
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	require.NoError(t, err)
	return string(data)
}
