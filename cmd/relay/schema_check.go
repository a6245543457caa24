package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
)

type checkFlags struct {
	registryFlags

	git, mode string
	out       form
}

func newSchemaCheck() *cobra.Command {
	f := &checkFlags{}
	cmd := &cobra.Command{
		Use:   "check PATH...",
		Short: "May these schemas follow the ones in use? For CI",
		Long: `May these schemas follow the ones in use? The exit code is 0 if all may, else 1 with
every place and rule that is broken; in GitHub Actions also as annotations.

What is in use:
  --registry URL  the versions of a registry, by its own mode and rules
  --git REVISION  the files as they were there, by --mode (default BACKWARD)
  neither         the frozen versions name.vN.avsc beside them, by --mode
                  (default BACKWARD_TRANSITIVE)`,
		Example: `  relay schema check schemas --git origin/main
  relay schema check schemas/order.avsc --registry https://registry:8081 --topic orders`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.git != "" && f.url != "" {
				return wrongUse("--git and --registry: choose one")
			}
			if f.url != "" && f.mode != "" {
				return wrongUse("--mode is the registry's own: leave it out, or change it there")
			}
			return f.run(cmd, args)
		},
	}
	f.flags(cmd)
	f.subjectFlags(cmd)
	cmd.Flags().StringVar(&f.git, "git", "", "compare with the files at this `revision`")
	cmd.Flags().StringVar(&f.mode, "mode", "", "NONE, or BACKWARD, FORWARD, FULL, each also with _TRANSITIVE")
	f.out.flag(cmd)
	return cmd
}

var errIncompatible = errors.New("schemas are not compatible with what is in use")

func (f *checkFlags) run(cmd *cobra.Command, args []string) error {
	bad := false
	for _, path := range args {
		s, err := openSource(path)
		if err != nil {
			return err
		}
		against, err := f.against(cmd.Context(), s)
		if err != nil {
			return err
		}
		for _, name := range s.names {
			r := checkResult{Name: name, File: s.file(name)}
			if err := r.check(cmd.Context(), f, s, against); err != nil {
				return fmt.Errorf("%s: %w", r.File, err)
			}
			if err := f.print(cmd, &r); err != nil {
				return err
			}
			bad = bad || !r.Compatible
		}
		for _, g := range against.gone {
			fmt.Fprintf(cmd.ErrOrStderr(), "gone  %s was there and is not any more: may be right if nobody reads it\n", g)
		}
	}
	if bad {
		return errIncompatible
	}
	return nil
}

// against is what the files are compared with.
type against struct {
	schema.Registry

	subject func(name string, s event.Schema) (string, error)
	gone    []string
}

func byName(name string, _ event.Schema) (string, error) { return name, nil }

func (f *checkFlags) against(ctx context.Context, s *source) (*against, error) {
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	if client != nil {
		if err := f.alone(s); err != nil {
			return nil, err
		}
		return &against{Registry: client, subject: func(_ string, s event.Schema) (string, error) { return f.subjectOf(s) }}, nil
	}
	mode := f.mode
	if mode == "" && f.git != "" {
		mode = string(schema.Backward)
	} else if mode == "" {
		mode = string(schema.BackwardTransitive)
	}
	m, err := schema.ParseMode(mode)
	if err != nil {
		return nil, err
	}
	if f.git == "" {
		s.Mode = m
		return &against{Registry: s.Files, subject: byName}, nil
	}
	old, err := gitFiles(ctx, s.dir, f.git)
	if err != nil {
		return nil, err
	}
	a := &against{Registry: &revision{files: old, mode: m}, subject: byName}
	if len(s.names) < len(s.Names()) {
		return a, nil // one file of the folder
	}
	for _, name := range old.Names() {
		if now, err := s.Schema(name); errors.Is(err, avro.ErrNoSchema) || now.IsZero() {
			a.gone = append(a.gone, name)
		}
	}
	return a, nil
}

// checkResult is what is said of one schema.
type checkResult struct {
	Name       string      `json:"name"`
	File       string      `json:"file"`
	Subject    string      `json:"subject,omitempty"`
	Compatible bool        `json:"compatible"`
	Mode       schema.Mode `json:"mode"`
	Registry   string      `json:"registry_says,omitempty"`
	Problems   []problemAt `json:"problems,omitempty"`
}

type problemAt struct {
	Path    string      `json:"path"`
	Rule    schema.Rule `json:"rule"`
	Line    int         `json:"line,omitempty"` // in the file, 0 if not found there
	Version int         `json:"version,omitempty"`
	Message string      `json:"message"`
}

func (r *checkResult) check(ctx context.Context, f *checkFlags, s *source, a *against) error {
	next, err := s.Schema(r.Name)
	if err != nil {
		return err
	}
	subject, err := a.subject(r.Name, next)
	if err != nil {
		return err
	}
	v, err := schema.Check(ctx, a, subject, next, avro.Compare)
	if err != nil {
		return err
	}
	r.Compatible, r.Mode, r.Registry = v.Compatible, v.Mode, v.Registry
	if f.url != "" {
		r.Subject = subject
	}
	text, err := os.ReadFile(r.File)
	if err != nil {
		return err
	}
	for _, x := range v.Violations {
		r.Problems = append(r.Problems, problemAt{Path: x.Path, Rule: x.Rule, Line: lineOf(string(text), x.Path), Version: x.Version, Message: x.String()})
	}
	if len(r.Problems) == 0 && !v.Compatible {
		r.Problems = append(r.Problems, problemAt{Message: fmt.Sprintf("breaks %s, says the registry: %s", v.Mode, v.Registry)})
	}
	return nil
}

// lineOf finds the field that a path ends with, 0 if it is not in the text: it may
// be in another file, or be gone.
func lineOf(text, path string) int {
	name := path[strings.LastIndexAny(path, ".")+1:]
	name, _, _ = strings.Cut(name, "[")
	name, _, _ = strings.Cut(name, "<")
	if name == "" {
		return 0
	}
	at := regexp.MustCompile(`"name"\s*:\s*"` + regexp.QuoteMeta(name) + `"`).FindStringIndex(text)
	if at == nil {
		return 0
	}
	return 1 + strings.Count(text[:at[0]], "\n")
}

func (f *checkFlags) print(cmd *cobra.Command, r *checkResult) error {
	out := cmd.OutOrStdout()
	if f.out.json {
		return f.out.print(cmd, r, "")
	}
	what := r.Name
	if r.Subject != "" {
		what += ", subject " + r.Subject
	}
	if r.Compatible {
		fmt.Fprintf(out, "ok    %s: %s (%s)\n", r.File, what, r.Mode)
	} else {
		fmt.Fprintf(out, "FAIL  %s: %s (%s)\n", r.File, what, r.Mode)
	}
	level := "error"
	if r.Compatible {
		level = "warning" // the registry lets it pass
	}
	for _, p := range r.Problems {
		message := p.Message
		if p.Version > 0 && r.Mode.Transitive() {
			message += fmt.Sprintf(" (against version %d)", p.Version)
		}
		if r.Compatible {
			message += ", which the registry does not look at"
		}
		fmt.Fprintf(out, "      %s\n", message)
		annotate(out, level, r.File, p.Line, message)
	}
	return nil
}
