package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// clone is the last commit in a folder of its own.
func clone(t *testing.T, dir string) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		svctest.Missing(t, "a release is built from a git clone, and this is none: "+err.Error())
	}
	out, err := exec.CommandContext(t.Context(), "git", "clone", "--quiet", strings.TrimSpace(string(root)), dir).CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

func build(t *testing.T, source string) *release {
	t.Helper()
	r := &release{source: source, out: filepath.Join(t.TempDir(), "dist"), platforms: []string{"linux/" + runtime.GOARCH}, log: t.Output()}
	require.NoError(t, r.build(t.Context()))
	return r
}

// TestRelease builds the last commit twice, as two people would: in other folders, with
// other rights on new files, another time zone, settings for Go in the environment.
func TestRelease(t *testing.T) {
	first := build(t, clone(t, filepath.Join(t.TempDir(), "a")))
	mask := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(mask) })
	t.Setenv("TZ", "Pacific/Auckland")
	t.Setenv("GOFLAGS", "-tags=faults")
	elsewhere := clone(t, filepath.Join(t.TempDir(), "some", "other folder"))
	second := build(t, elsewhere)
	syscall.Umask(mask)

	t.Run("is the same byte for byte", func(t *testing.T) {
		require.Len(t, first.files, 2)
		require.Equal(t, first.files, second.files)
		for _, name := range append(first.files, sumsFile) {
			require.Equal(t, sum(t, filepath.Join(first.out, name)), sum(t, filepath.Join(second.out, name)), name)
		}
	})
	t.Run("has checksums", func(t *testing.T) {
		text := read(t, filepath.Join(first.out, sumsFile))
		for _, name := range first.files {
			require.Contains(t, text, sum(t, filepath.Join(first.out, name))+"  "+name+"\n")
		}
	})
	t.Run("says what it is", func(t *testing.T) { saysWhatItIs(t, first) })
	t.Run("has everything that one needs", func(t *testing.T) { hasEverything(t, first) })
	t.Run("has a bill of materials", func(t *testing.T) { hasABill(t, first) })
	t.Run("image", func(t *testing.T) { imageRuns(t, first) })
	t.Run("is not built from what nobody has", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "README.md"), []byte("changed"), 0o600))
		err := (&release{source: elsewhere, out: filepath.Join(t.TempDir(), "dist"), log: t.Output()}).build(t.Context())
		require.ErrorContains(t, err, "changes that are in no commit")
		require.ErrorContains(t, err, "README.md")
	})
}

func TestReleaseOfAnUnknownCommit(t *testing.T) {
	t.Parallel()
	r := &release{}
	err := r.stamped(&buildinfo.BuildInfo{Main: debug.Module{Version: "(devel)"}})
	require.ErrorContains(t, err, "not in a git worktree")
	require.Empty(t, r.version)
}

func binary(r *release) string { return filepath.Join(r.out, "linux_"+runtime.GOARCH, "relay") }

func saysWhatItIs(t *testing.T, r *release) {
	head, err := exec.CommandContext(t.Context(), "git", "-C", r.root, "rev-parse", "HEAD").Output()
	require.NoError(t, err)
	info, err := buildinfo.ReadFile(binary(r))
	require.NoError(t, err)
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	require.Equal(t, strings.TrimSpace(string(head)), settings["vcs.revision"])
	require.Equal(t, "false", settings["vcs.modified"])
	require.Empty(t, settings["-tags"])
	require.True(t, strings.HasPrefix(info.Main.Version, "v"), info.Main.Version)
	if runtime.GOOS == "linux" {
		said, err := exec.CommandContext(t.Context(), binary(r), "version").Output()
		require.NoError(t, err)
		require.Contains(t, string(said), info.Main.Version)
	}
}

func hasEverything(t *testing.T, r *release) {
	f, err := os.Open(filepath.Join(r.out, "relay_"+r.version+"_linux_"+runtime.GOARCH+".tar.gz"))
	require.NoError(t, err)
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	require.NoError(t, err)
	modes := map[string]int64{}
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		_, name, ok := strings.Cut(header.Name, "/")
		require.True(t, ok, "%s is in no folder", header.Name)
		require.Zero(t, header.Uid)
		modes[name] = header.Mode
	}
	require.Equal(t, int64(0o755), modes["relay"])
	require.Equal(t, int64(0o644), modes["LICENSE"])
	require.Equal(t, int64(0o755), modes["deploy/compose/roles.sh"])
	for _, name := range []string{"docs/relay.yaml", "deploy/systemd/outboxkit-relay.service", "deploy/kubernetes/deployment.yaml", "deploy/Containerfile"} {
		require.Contains(t, modes, name)
	}
	for name := range modes {
		require.False(t, strings.HasSuffix(name, ".go"), name)
	}
}

func hasABill(t *testing.T, r *release) {
	var b bom
	require.NoError(t, json.Unmarshal([]byte(read(t, filepath.Join(r.out, "relay_"+r.version+"_linux_"+runtime.GOARCH+".cdx.json"))), &b))
	require.Equal(t, "pkg:golang/github.com/outboxkit/outboxkit@"+r.version, b.Metadata.Component.PURL)
	// What go.mod says, read with no code of ours.
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "pkg:golang/{{.Path}}@{{.Version}}", "github.com/jackc/pgx/v5").Output()
	require.NoError(t, err)
	want := strings.TrimSpace(string(out))
	refs := map[string]bool{}
	for _, c := range b.Components {
		require.False(t, refs[c.Ref], "%s is there twice", c.Ref)
		refs[c.Ref] = true
	}
	require.Contains(t, refs, want)
	require.Contains(t, refs, "pkg:golang/std@"+strings.TrimPrefix(runtime.Version(), "go"))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func sum(t *testing.T, path string) string {
	t.Helper()
	s := sha256.Sum256([]byte(read(t, path)))
	return hex.EncodeToString(s[:])
}
