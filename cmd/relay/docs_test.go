package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const docsFolder = "../../docs"

// mustRun are the documents whose commands people type as they stand.
var mustRun = []string{"README.md", "migrating.md", "postgres.md", "runbook.md"}

// TestDocumentsTellTheTruth runs what documents mark as run, in the order of the
// document, and compares exit codes and output with what they show.
func TestDocumentsTellTheTruth(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(docsFolder, "*.md"))
	require.NoError(t, err)
	files = append(files, "../../README.md")
	var ran []string
	for _, file := range files {
		blocks := parseFile(t, file)
		if len(blocks) == 0 {
			continue
		}
		ran = append(ran, filepath.Base(file))
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			require.NoError(t, newDocumentWorld(t).run(blocks))
		})
	}
	require.Subset(t, ran, mustRun)
}

func parseFile(t *testing.T, file string) []docBlock {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	blocks, err := parseDocument(string(text))
	require.NoError(t, err, file)
	return blocks
}

// A runner that lets lies pass would be worse than none.
func TestDocumentsThatLieAreFound(t *testing.T) {
	t.Parallel()
	lies := map[string]struct{ document, want string }{
		"an exit code":           {"```console run\n$ false\n```", "ended with 1, the document says 0"},
		"a failure that is none": {"```console run\n$ true\n[exit 1]\n```", "ended with 0, the document says 1"},
		"an output":              {"```console run\n$ echo done, almost\ndone\n```", "done, almost\n"},
		"a line left out":        {"```console run\n$ printf 'a\\nb\\n'\na\n```", "the document says"},
		"a command":              {"```console run\n$ relay status --everything\n…\n```", "unknown flag: --everything"},
		"rows":                   {"```sql run db=shop\nSELECT 1, 'a';\n--> 2 | a\n```", `rows are ["1 | a"]`},
		"statements":             {"```sql run db=shop\nSELECT * FROM nothing;\n```", `relation "nothing" does not exist`},
		"hidden statements":      {"<!-- run sql db=shop\nSELECT * FROM nothing;\n-->", `relation "nothing" does not exist`},
		"a background command":   {"```console run\n$ relay run --config nowhere.yaml &\n$ kill %1\n```", "exec relay run --config nowhere.yaml: "},
		"never true":             {"```sql run db=shop eventually\nSELECT 1;\n--> 2\n```", `rows are ["1"]`},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blocks, err := parseDocument(lie.document)
			require.NoError(t, err)
			require.Len(t, blocks, 1)
			w := newDocumentWorld(t)
			w.patience = 0
			require.ErrorContains(t, w.run(blocks), lie.want)
		})
	}
}

// What is true passes, however tables are drawn.
func TestTrueDocumentsPass(t *testing.T) {
	t.Parallel()
	blocks, err := parseDocument(strings.Join([]string{
		"Not run:", "```sh", "rm -rf /", "```",
		"```yaml run file=a.yaml", "a: 1", "```",
		"<!-- run sql db=shop", "CREATE TABLE t AS SELECT 1 AS n;", "-->",
		"```sql run db=shop", "SELECT n, 'b' FROM t;", "--> 1 | b", "```",
		"```console run", `$ cat \`, "    a.yaml", "a: 1",
		"$ printf '┌──┐\\n│ a   │ 17ms │\\n└──┘\\n'", "│ a │ … │",
		"$ printf 'a\\nb\\nc\\n'", "a", "…",
		"$ relay migrate status outbox --database-url postgres://me@db.example/shop", "schema outbox: version 0 of …", "…",
		"$ false", "[exit 1]", "```",
	}, "\n"))
	require.NoError(t, err)
	require.Len(t, blocks, 4)
	require.NoError(t, newDocumentWorld(t).run(blocks))
}

// What is not understood is refused, not passed over.
func TestDocumentsThatAreNotUnderstood(t *testing.T) {
	t.Parallel()
	for want, document := range map[string]string{
		"line 1: the block has no end":               "```console run\n$ true\n",
		"line 2: a block to be run is indented":      "- list\n  ```console run\n  $ true\n  ```",
		`line 1: "` + "```" + `sql run shop" is not`: "```sql run shop\nSELECT 1\n```",
	} {
		_, err := parseDocument(document)
		require.ErrorContains(t, err, want)
	}
	for want, document := range map[string]string{
		`"ruby" is no kind of block`:         "```ruby run\nputs 1\n```",
		"does not begin with a command":      "```console run\ntrue\n```",
		"does not say in which database":     "```sql run\nSELECT 1\n```",
		"there is no such job":               "```console run\n$ kill %2\n```",
		`file="../x.yaml" is no file's name`: "```yaml run file=../x.yaml\na: 1\n```",
	} {
		blocks, err := parseDocument(document)
		require.NoError(t, err)
		require.ErrorContains(t, newDocumentWorld(t).run(blocks), want)
	}
}
