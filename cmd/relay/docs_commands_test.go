package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// How documents name commands: in blocks for a shell, up to a comment, a pipe or a
// redirection, and in code within the text.
var (
	anyBlock    = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	shellBlock  = regexp.MustCompile("(?ms)^ *```(?:sh|console)\\b.*?^ *```$")
	callInBlock = regexp.MustCompile(`(?m)^ *(?:\$ )?relay ([^#|>\n]+)`)
	callInText  = regexp.MustCompile("`relay ([^`\n]+)`")
)

// TestDocumentsNameCommandsThatAreThere is about those that are not run, too: each
// command and each flag exists.
func TestDocumentsNameCommandsThatAreThere(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(docsFolder, "*.md"))
	require.NoError(t, err)
	found := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, call := range callsIn(string(text)) {
			require.NoError(t, commandIsThere(call), "%s: relay %s", file, call)
			found++
		}
	}
	require.Greater(t, found, 100)
}

func callsIn(text string) (calls []string) {
	for _, block := range shellBlock.FindAllString(text, -1) {
		for _, m := range callInBlock.FindAllStringSubmatch(block, -1) {
			calls = append(calls, m[1])
		}
	}
	for _, m := range callInText.FindAllStringSubmatch(anyBlock.ReplaceAllString(text, ""), -1) {
		calls = append(calls, m[1])
	}
	return calls
}

// commandIsThere says what of a call there is not. What stands for something else, such
// as NAME or …, is fine.
func commandIsThere(call string) error {
	cmd := newRoot()
	for _, word := range words(call) {
		word = strings.Trim(word, "[]")
		if flag, ok := strings.CutPrefix(word, "--"); ok {
			if name, _, _ := strings.Cut(flag, "="); name != "help" && !takesFlag(cmd, name) {
				return fmt.Errorf("%s has no flag --%s", cmd.CommandPath(), name)
			}
			continue
		}
		if !cmd.HasSubCommands() {
			continue // an argument, or a flag's value
		}
		list := cmd.Commands()
		i := slices.IndexFunc(list, func(sub *cobra.Command) bool { return sub.Name() == word })
		switch {
		case i >= 0:
			cmd = list[i]
		case word == "completion" || word != strings.ToLower(word) || word == "…": // the library's own, there or not; a placeholder
			return nil
		default:
			return fmt.Errorf("%s has no command %s", cmd.CommandPath(), word)
		}
	}
	return nil
}

// takesFlag tells whether the command, or one below it, has the flag.
func takesFlag(cmd *cobra.Command, name string) bool {
	return cmd.Flag(name) != nil || slices.ContainsFunc(cmd.Commands(), func(sub *cobra.Command) bool { return takesFlag(sub, name) })
}

func TestCommandsThatAreNotThereAreFound(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]string{
		"statuss --json":                "relay has no command statuss",
		"dlq redirve --all":             "relay dlq has no command redirve",
		"status --everything":           "relay status has no flag --everything",
		"dlq --everything":              "relay dlq has no flag --everything",
		`dlq discard --why "no reason"`: "relay dlq discard has no flag --why",
	} {
		require.EqualError(t, commandIsThere(call), want)
	}
	for _, call := range []string{"run", "status [--watch] [--json]", "dlq --inbox NAME|URL", "COMMAND --help", "completion --help", `dlq list --inbox=x --reason-like "a --b"`, "health live"} {
		require.NoError(t, commandIsThere(call))
	}
	require.Equal(t, []string{"status ", "dlq list ", "dlq list", "run"},
		callsIn("Text: `relay run`.\n```sh\nrelay status # relay x\n```\n```go\nrelay y\n```\n```console run\n$ relay dlq list > a\nrelay: z\n$ relay dlq list\n```\n"))
}
