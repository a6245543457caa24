package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes, as docs/configuration.md lists them.
const (
	exitFailed = 1 // it failed, or the answer is no
	exitUsage  = 2 // wrong flags, arguments or configuration: nothing was done
	exitFound  = 3 // relay doctor found failures
)

// usageError is a mistake in what was asked. Nothing has been done.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// ExitCode is what the process ends with.
func (usageError) ExitCode() int { return exitUsage }

// ExitCode is what the process ends with.
func (*configError) ExitCode() int { return exitUsage }

func wrongUse(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode is that of an error that has one, else 1.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.ExitCode()
	default:
		return exitFailed
	}
}

// prepare gives a command and those below it what all have in common: mistakes in
// flags and arguments end with exitUsage and say where the help is, and so does a
// command that is not there.
func prepare(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.HasSubCommands() {
			return wrongUse("%w: %s takes its flags behind one of its commands, see %[2]s --help", err, cmd.CommandPath())
		}
		return wrongUse("%w: see %s --help", err, cmd.CommandPath())
	})
	if cmd.HasSubCommands() {
		prepareGroup(cmd)
	} else if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return wrongUse("%w: see %s --help", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

// prepareGroup refuses unknown commands: the library prints the help for them, and
// ends with 0, as if something had been done.
func prepareGroup(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		hint := "see " + cmd.CommandPath() + " --help"
		if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
			hint = "did you mean " + strings.Join(meant, " or ") + "?"
		}
		return wrongUse("unknown command %q for %s: %s", args[0], cmd.CommandPath(), hint)
	}
}
