package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

//go:generate sh -c "go run . config reference > reference.tmp && mv reference.tmp ../../docs/configuration.md"

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration, show what counts and where it comes from",
		Long: `Check the configuration, show what counts and where it comes from.

Settings come from the file, over it from the environment (OUTBOXKIT_LOG_LEVEL for
log.level), over that from the flags of relay run, which these commands take too.`,
	}
	cmd.AddCommand(newConfigCheck(), newConfigShow(), newConfigReference())
	return cmd
}

// checked reads and checks everything that somebody may use.
func (s settings) checked() (config, *validator, error) {
	c, v, err := s.read()
	if err != nil {
		return c, v, err
	}
	if len(c.Inboxes) > 0 && c.Database == (databaseConfig{}) && len(c.Databases)+len(c.Pipelines) == 0 {
		v.checkInboxes(&c) // a file for relay dlq alone
		return c, v, nil
	}
	v.check(&c)
	v.checkAdminFiles(&c.Admin)
	// A daemon need not have the secrets of consumers' databases.
	inboxes := &validator{file: v.file, origins: v.origins}
	inboxes.checkInboxes(&c)
	for _, problem := range inboxes.problems {
		v.warnings = append(v.warnings, "relay dlq --inbox would end with: "+problem.Error())
	}
	return c, v, nil
}

func newConfigCheck() *cobra.Command {
	var path string
	var out form
	cmd := &cobra.Command{
		Use:   "check --config relay.yaml",
		Short: "Find all that is wrong in the configuration; connects to nothing",
		Long: `Find all that is wrong in the configuration, with the line, variable or flag it
stands in. It connects to nothing. The exit code is 0 if relay run would take the
configuration, else 2. Warnings do not change it.`,
		Example: `  relay config check --config relay.yaml
  relay config check --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, v, err := settings{path, cmd.Flags()}.checked()
			r := verdictOf(v, err)
			if err := out.print(cmd, r, r.text()); err != nil {
				return err
			}
			if !r.Valid {
				return wrongUse("the configuration has problems: %d", len(r.Problems))
			}
			return nil
		},
	}
	configFlag(cmd, &path)
	keyFlags(cmd)
	out.flag(cmd)
	return cmd
}

type configVerdict struct {
	File     string          `json:"file"`
	Valid    bool            `json:"valid"`
	Problems []configProblem `json:"problems"`
	Warnings []string        `json:"warnings"`
}

type configProblem struct {
	Place   string `json:"place"`          // file, variable or flag
	Line    int    `json:"line,omitempty"` // in the file
	Field   string `json:"field,omitempty"`
	Problem string `json:"problem"`
	whole   string
}

func verdictOf(v *validator, err error) configVerdict {
	r := configVerdict{File: v.file, Problems: []configProblem{}, Warnings: append([]string{}, v.warnings...)}
	for _, problem := range append(unjoined(err), v.problems...) {
		p := configProblem{Place: v.file, Problem: withoutPasswords(problem.Error()), whole: withoutPasswords(problem.Error())}
		var e *configError
		if errors.As(problem, &e) {
			p.Place, p.Line, p.Field, p.Problem = e.place.name, e.place.line, e.field, withoutPasswords(e.reason())
		}
		r.Problems = append(r.Problems, p)
	}
	r.Valid = len(r.Problems) == 0
	return r
}

// unjoined takes apart what errors.Join put together.
func unjoined(err error) []error {
	var list interface{ Unwrap() []error }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &list):
		return list.Unwrap()
	default:
		return []error{err}
	}
}

func (r configVerdict) text() string {
	var lines []string
	for _, p := range r.Problems {
		lines = append(lines, printable(p.whole))
	}
	for _, w := range r.Warnings {
		lines = append(lines, "warning: "+printable(w))
	}
	if r.Valid {
		lines = append(lines, r.File+": ok")
	}
	return strings.Join(lines, "\n")
}

func newConfigShow() *cobra.Command {
	var path string
	var out form
	cmd := &cobra.Command{
		Use:   "show --config relay.yaml",
		Short: "Print every setting that counts, and where it comes from; no secrets",
		Long: `Print every setting that counts, and where it comes from: a line of the file, a
variable, a flag, or the default. Passwords and tokens are shown as ` + hidden + `.`,
		Example: `  relay config show --config relay.yaml
  relay config show --lease 30s --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, v, err := settings{path, cmd.Flags()}.checked()
			if err == nil {
				err = v.err()
			}
			if err != nil {
				return err
			}
			for _, w := range v.warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", printable(w))
			}
			list := v.show(&c)
			return out.print(cmd, list, showText(list))
		},
	}
	configFlag(cmd, &path)
	keyFlags(cmd)
	out.flag(cmd)
	return cmd
}
