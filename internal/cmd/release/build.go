package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// release is one build.
type release struct {
	source    string // a folder in a clone of the repository
	out       string
	platforms []string
	log       io.Writer // what the compiler says

	root    string    // of the clone
	at      time.Time // of the commit: no other time goes into a file
	version string    // as Go stamps it
	files   []string  // in out, for the checksums
}

const sumsFile = "SHA256SUMS"

// packed are the files of the repository that an archive has beside the binary.
var packed = []string{"LICENSE", "CHANGELOG.md", "docs/relay.yaml", "docs/relay-databases.yaml", "deploy"}

// build makes, in r.out: the binaries, by platform; an archive of each; the bill of
// materials; the checksums.
func (r *release) build(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for _, platform := range r.platforms {
		if err := r.platform(ctx, platform); err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
	}
	return r.sums()
}

// prepare refuses what could not be built again.
func (r *release) prepare(ctx context.Context) (err error) {
	if r.root, err = r.git(ctx, "rev-parse", "--show-toplevel"); err != nil {
		return err
	}
	changes, err := r.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return fmt.Errorf("the tree has changes that are in no commit, so nobody could build this again: commit or stash them\n%s", changes)
	}
	seconds, err := r.git(ctx, "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("the commit's time: %w", err)
	}
	r.at = time.Unix(unix, 0).UTC()
	return errors.Join(os.RemoveAll(r.out), os.MkdirAll(r.out, 0o755))
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", r.source}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (r *release) platform(ctx context.Context, platform string) error {
	goos, goarch, ok := strings.Cut(platform, "/")
	if !ok {
		return errors.New("is no platform: write GOOS/GOARCH, for example linux/amd64")
	}
	binary, err := filepath.Abs(filepath.Join(r.out, goos+"_"+goarch, "relay"))
	if err != nil {
		return err
	}
	if err := r.compile(ctx, goos, goarch, binary); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	if err := r.stamped(info); err != nil {
		return err
	}
	name := fmt.Sprintf("relay_%s_%s_%s", r.version, goos, goarch)
	if err := r.archive(name, binary); err != nil {
		return err
	}
	return r.bill(name, info)
}

// stamped takes the version from what Go wrote into the binary. It writes none, and
// says nothing about it, where .git is a file.
func (r *release) stamped(info *buildinfo.BuildInfo) error {
	if !slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" }) {
		return fmt.Errorf("the binary does not say which commit it is of (version %s): build in a clone, not in a git worktree or submodule", info.Main.Version)
	}
	r.version = info.Main.Version
	return nil
}

// compile builds with nothing of the machine in the binary: no paths, no C library,
// no settings of the environment. Go stamps version, commit and its time.
func (r *release) compile(ctx context.Context, goos, goarch, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags=-s -w", "-o", binary, "./cmd/relay")
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.root, r.log, r.log
	cmd.Env = append(os.Environ(), "PWD="+r.root, "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch,
		"GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	return cmd.Run()
}

// sums lists the archives and bills as sha256sum does.
func (r *release) sums() error {
	slices.Sort(r.files)
	var b strings.Builder
	for _, name := range r.files {
		text, err := os.ReadFile(filepath.Join(r.out, name)) //nolint:gosec // our own
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(text), name)
	}
	return os.WriteFile(filepath.Join(r.out, sumsFile), []byte(b.String()), 0o644) //nolint:gosec // for everybody
}
