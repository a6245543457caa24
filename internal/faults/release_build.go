package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// Previous is the release that this one must run beside: the first pre-release,
// v0.1.0-alpha.1 (docs/upgrading.md).
const Previous = "f357313bd60e851a20b4323ecc072f3203f7a920"

// Why the sources of a commit are not here.
var (
	// ErrShallow is returned where the clone does not reach back to the commit. Without
	// a way to its origin nothing can be done about that.
	ErrShallow = errors.New("this clone is shallow and does not reach back to the commit: git fetch --unshallow brings it")
	// ErrNoClone is returned outside of a clone, as in an archive of the sources.
	ErrNoClone = errors.New("the commit is taken from a git clone, and this is none")
)

// programs are what a release's processes are started from.
var programs = []string{"relay", "faults"}

// BuildRelease builds the programs of a commit of this repository into dir, for
// [Config.Beside]. The working folder must be in a clone of it that has the commit, see
// [ErrShallow] and [ErrNoClone]. The sources stay in the cache, always in the same
// folder, so that Go compiles them once. What the compiler says goes to out.
func BuildRelease(ctx context.Context, commit, dir string, out io.Writer) error {
	src, err := releaseSource(ctx, ".", commit)
	if err != nil {
		return fmt.Errorf("release %s: %w", commit, err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "faults", "-buildvcs=false", "-o", dir+string(filepath.Separator),
		"./cmd/relay", "./internal/cmd/faults")
	cmd.Dir, cmd.Stdout, cmd.Stderr = src, out, out
	cmd.Env = append(os.Environ(), "PWD="+src, "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("release %s: build in %s: %w", commit, src, err)
	}
	return nil
}

// releaseSource is a folder with the files of a commit that the clone around in has. It
// is no git worktree: a process that is killed leaves nothing in the clone.
func releaseSource(ctx context.Context, in, commit string) (dir string, err error) {
	root, err := git(ctx, in, "rev-parse", "--show-toplevel")
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoClone, err)
	}
	full, err := git(ctx, root, "rev-parse", "--verify", "--quiet", commit+"^{commit}")
	if err != nil {
		return "", whyMissing(ctx, root, err)
	}
	cache, err := proc.CacheDir("releases")
	if err != nil {
		return "", err
	}
	unlock, err := proc.Lock(ctx, filepath.Join(cache, full+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	dir = filepath.Join(cache, full)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unpacked, err := os.MkdirTemp(cache, "unpacking-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unpacked) //nolint:errcheck // a cache
	if err := export(ctx, root, full, unpacked); err != nil {
		return "", err
	}
	return dir, os.Rename(filepath.Join(unpacked, "src"), dir)
}

// whyMissing says why a clone has not the commit.
func whyMissing(ctx context.Context, root string, cause error) error {
	shallow, err := git(ctx, root, "rev-parse", "--is-shallow-repository")
	switch {
	case err != nil:
		return err
	case shallow == "true":
		return fmt.Errorf("%w (%w)", ErrShallow, cause)
	}
	return fmt.Errorf("the clone has its whole history, but no such commit: %w", cause)
}

// export writes the commit's files to into/src.
func export(ctx context.Context, root, commit, into string) error {
	archive, src := filepath.Join(into, "src.tar"), filepath.Join(into, "src")
	if _, err := git(ctx, root, "archive", "--format=tar", "--output="+archive, commit); err != nil {
		return err
	}
	if err := os.Mkdir(src, 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", src).CombinedOutput(); err != nil {
		return fmt.Errorf("tar -xf %s: %w: %s", archive, err, out)
	}
	return nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
