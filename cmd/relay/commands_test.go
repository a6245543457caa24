package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// leaves calls f for every command that does something.
func leaves(cmd *cobra.Command, f func(*cobra.Command)) {
	if !cmd.HasSubCommands() {
		f(cmd)
	}
	for _, sub := range cmd.Commands() {
		leaves(sub, f)
	}
}

// Every command explains itself, shows how it is called in a way that works, and
// prints JSON. Those that change something and can say beforehand what, do.
func TestEveryCommand(t *testing.T) {
	t.Parallel()
	changing := map[string]bool{
		"relay migrate up": true, "relay migrate down": true, "relay pipeline drop": true, "relay pipeline filter": true, "relay rebase": true,
		"relay dlq redrive": true, "relay dlq discard": true, "relay replay": true, "relay schema register": true,
	}
	leaves(newRoot(), func(cmd *cobra.Command) {
		name := cmd.CommandPath()
		require.NotEmpty(t, cmd.Short, name)
		require.NotNil(t, cmd.Args, "%s takes any arguments", name)
		require.NotEmpty(t, cmd.Example, "%s has no example", name)
		if name != "relay run" { // prints nothing but its log, see log.format
			require.NotNil(t, cmd.Flag("json"), "%s has no --json", name)
		}
		require.Equal(t, changing[name], cmd.Flag("dry-run") != nil, "%s: --dry-run", name)
		cmd.Flags().VisitAll(func(f *pflag.Flag) { require.NotEmpty(t, f.Usage, "%s --%s", name, f.Name) })
		for line := range strings.Lines(cmd.Example) {
			exampleWorks(t, cmd, line)
		}
	})
}

// exampleWorks reads a line of an example as the shell and the command would.
func exampleWorks(t *testing.T, cmd *cobra.Command, line string) {
	t.Helper()
	_, call, ok := strings.Cut(line, "relay ")
	require.True(t, ok, line)
	call, _, _ = strings.Cut(call, " > ")
	call, _, _ = strings.Cut(call, " | ")
	root := newRoot()
	found, rest, err := root.Find(words(call))
	require.NoError(t, err, line)
	require.Equal(t, cmd.CommandPath(), found.CommandPath(), line)
	require.NoError(t, found.ParseFlags(rest), line)
	require.NoError(t, found.ValidateArgs(found.Flags().Args()), line)
}

// words splits a line at spaces outside of quotation marks.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(strings.TrimSpace(line), `"`) {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

// What is not there is no success, and the way out is named.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`unknown command "dlg" for relay: did you mean dlq?`:                                                {"dlg", "list"},
		`unknown command "redirve" for relay dlq: did you mean redrive?`:                                    {"dlq", "redirve"},
		`unknown command "zzz" for relay migrate: see relay migrate --help`:                                 {"migrate", "zzz"},
		"unknown flag: --inbox: relay dlq takes its flags behind one of its commands":                       {"dlq", "lst", "--inbox", "x"},
		"unknown flag: --inbx: see relay dlq list --help":                                                   {"dlq", "list", "--inbx", "x"},
		"accepts 1 arg(s), received 0: see relay dlq show --help":                                           {"dlq", "show"},
		`unknown command "x" for "relay status": see relay status --help`:                                   {"status", "x"},
		`invalid argument "many" for "--limit" flag: strconv.ParseInt: parsing "many": invalid syntax: see`: {"dlq", "list", "--limit", "many"},
		"--database-url is not a Postgres URL":                                                              {"migrate", "up", "--database-url", "mysql://u:hunter2@h/d"},
		"/none/such.yaml: cannot be read; name another with --config or OUTBOXKIT_CONFIG":                   {"status", "--config", "/none/such.yaml"},
	} {
		out, code := runHere(t, args...)
		require.Equal(t, exitUsage, code, out)
		require.Contains(t, out, want)
		require.NotContains(t, out, "hunter2")
	}
	out, code := runHere(t, "dlq")
	require.Zero(t, code)
	require.Contains(t, out, "Available Commands")
}

// The process itself ends with the code, and says why once, on standard error.
func TestExitCodesOfTheProcess(t *testing.T) {
	t.Parallel()
	out, code := runRelay(t, "dlq", "redirve")
	require.Equal(t, 2, code)
	require.Equal(t, "relay: unknown command \"redirve\" for relay dlq: did you mean redrive?\n", out)
	out, code = runRelay(t, "migrate", "status", "--database-url", "postgres://u:hunter2@127.0.0.1:1/d")
	require.Equal(t, 1, code)
	require.NotContains(t, out, "hunter2")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, code := runHere(t, "version", "--json")
	require.Zero(t, code)
	var b buildInfo
	require.NoError(t, json.Unmarshal([]byte(out), &b))
	require.Equal(t, runtime.Version(), b.Go)
	require.NotEmpty(t, b.Version)
	out, _ = runHere(t, "version")
	require.Contains(t, out, "relay "+b.Version)
	text := buildInfo{Version: "v1.2.3", Commit: "abc", Time: "2026-01-31T12:00:00Z", Modified: true, Go: "go1.26", Platform: "linux/amd64"}.text()
	require.Equal(t, "relay v1.2.3\ncommit abc of 2026-01-31T12:00:00Z, with changes that are not committed\ngo1.26 linux/amd64", text)
}

// The shell completes what the configuration has, without the secrets it may need.
func TestCompletion(t *testing.T) {
	t.Parallel()
	many := writeConfig(t, manyDatabases+"inboxes:\n  - {name: stock, url: 'postgres://u:${COMPLETION_NONE}@h/d'}\n")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pipeline", "drop", "--config", many, ""}, "kafka\nrabbit\n:4\n"},
		{[]string{"pipeline", "filter", "--config", many, "--database", "bills", ""}, "rabbit\n:4\n"}, // its own, not those at the top
		{[]string{"dlq", "list", "--config", many, "--pipeline", ""}, "kafka\nrabbit\n:4\n"},
		{[]string{"dlq", "list", "--config", many, "--inbox", ""}, "stock\n:4\n"},
		{[]string{"status", "--config", many, "--database", ""}, "audit\nbills\nshop\n:4\n"},
		{[]string{"run", "--log-format", ""}, "text\njson\n:4\n"},
		{[]string{"status", "--config", "/none/such", "--database", ""}, ":4\n"},
		{[]string{"migrate", "up", ""}, "outbox\ninbox\n:4\n"},
	} {
		out, code := runHere(t, append([]string{"__complete"}, c.args...)...)
		require.Zero(t, code, out)
		require.Equal(t, c.want, strings.Split(out, "Completion ended")[0], fmt.Sprint(c.args))
	}
}
