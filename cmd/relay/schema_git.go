package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// gitFiles reads the schemas of a folder as they were at a revision; none if the
// folder was not there.
func gitFiles(ctx context.Context, dir, rev string) (*avro.Files, error) {
	if _, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}"); err != nil {
		return nil, fmt.Errorf("--git %s: no such revision here (a shallow clone? fetch more: fetch-depth: 0): %w", rev, err)
	}
	top, err := git(ctx, dir, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	prefix, err := git(ctx, dir, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, err
	}
	// The folder's tree, listed from its parent's commit: empty if it was not there.
	tree := text(rev) + "^{tree}"
	if p := strings.TrimSuffix(text(string(prefix)), "/"); p != "" {
		listed, err := git(ctx, text(string(top)), "ls-tree", "--format=%(objecttype) %(objectname)", rev, "--", p)
		if err != nil {
			return nil, err
		}
		kind, name, _ := strings.Cut(text(string(listed)), " ")
		if kind != "tree" {
			return avro.Load(emptyFS())
		}
		tree = name
	}
	archive, err := git(ctx, text(string(top)), "archive", "--format=zip", tree)
	if err != nil {
		return nil, err
	}
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, fmt.Errorf("git archive: %w", err)
	}
	f, err := avro.Load(r)
	if err != nil {
		return nil, fmt.Errorf("at %s: %w", rev, err)
	}
	return f, nil
}

func emptyFS() *zip.Reader { return &zip.Reader{} }

func text(s string) string { return strings.TrimSpace(s) }

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // no shell, and the user's own machine
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// revision is the registry of a git revision: one version of each name.
type revision struct {
	files *avro.Files
	mode  schema.Mode
}

// Versions implements schema.Registry.
func (r *revision) Versions(_ context.Context, name string) ([]schema.Version, error) {
	s, err := r.files.Schema(name)
	if errors.Is(err, avro.ErrNoSchema) {
		return nil, nil
	}
	return []schema.Version{{Number: 1, Schema: s}}, err
}

// Verdict implements schema.Registry.
func (r *revision) Verdict(ctx context.Context, name string, next event.Schema) (schema.Verdict, error) {
	versions, err := r.Versions(ctx, name)
	if err != nil {
		return schema.Verdict{}, err
	}
	return schema.Local(r.mode, next, versions, avro.Compare)
}

// Register implements schema.Registry.
func (r *revision) Register(context.Context, string, event.Schema) (schema.Version, error) {
	return schema.Version{}, errors.ErrUnsupported
}

// annotate writes a GitHub annotation when GitHub Actions runs the command.
func annotate(out io.Writer, level, file string, line int, message string) {
	if os.Getenv("GITHUB_ACTIONS") != "true" {
		return
	}
	at := "file=" + escapeProperty(file)
	if line > 0 {
		at += fmt.Sprintf(",line=%d", line)
	}
	fmt.Fprintf(out, "::%s %s,title=schema::%s\n", level, at, escapeData(message))
}

func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}
