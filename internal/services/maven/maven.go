// Package maven fetches Java programs: exactly the files that a committed list
// of SHA-256 sums names, through the machine's own mvn and its settings, into a
// cache that outlives runs.
package maven

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// Artifact is a program: what to fetch and what must come.
type Artifact struct {
	Name string // for messages and the cache, for example "kafka"
	POM  []byte // its runtime dependencies are fetched
	Sums []byte // lines of "SHA-256, two spaces, file name", as sha256sum prints

	// Unpack replaces each .tar.gz by its content, after checking it.
	Unpack bool
}

// Dir returns the folder with the artifact's files; an error that wraps
// fs.ErrNotExist says that Fetch has not run on this machine.
func (a Artifact) Dir() (string, error) {
	cache, err := proc.CacheDir("maven")
	if err != nil {
		return "", err
	}
	id := sha256.Sum256(append(bytes.Clone(a.POM), a.Sums...))
	dir := filepath.Join(cache, a.Name+"-"+hex.EncodeToString(id[:6]))
	if _, err := os.Stat(dir); err != nil {
		return dir, fmt.Errorf("%s has not been fetched yet: %w", a.Name, err)
	}
	return dir, nil
}

// Fetch returns Dir after filling it where needed.
func (a Artifact) Fetch(ctx context.Context) (string, error) {
	dir, err := a.Dir()
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	unlock, err := proc.Lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil { // another process was faster
		return dir, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("fetch %s: install Maven (Debian: apt-get install maven): %w", a.Name, err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := a.download(ctx, mvn, work); err != nil {
		return "", fmt.Errorf("fetch %s: %w", a.Name, err)
	}
	return dir, os.Rename(filepath.Join(work, "files"), dir)
}

func (a Artifact) download(ctx context.Context, mvn, work string) error {
	pom, files := filepath.Join(work, "pom.xml"), filepath.Join(work, "files")
	if err := os.WriteFile(pom, a.POM, 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	_, err := proc.Output(ctx, proc.Spec{
		Name: "mvn", Path: mvn, Dir: work,
		Args: []string{"--batch-mode", "--quiet", "-f", pom, copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory=" + files},
	})
	if err != nil {
		return err
	}
	if err := verify(files, a.Sums); err != nil || !a.Unpack {
		return err
	}
	return unpack(ctx, files)
}

func unpack(ctx context.Context, dir string) error {
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	for _, archive := range archives {
		_, tarErr := proc.Output(ctx, proc.Spec{Name: "tar", Path: "tar", Args: []string{"-xzf", archive, "-C", dir, "--no-same-owner"}})
		err = errors.Join(err, tarErr, os.Remove(archive))
	}
	return err
}

// verify checks that the folder holds the files of the list and nothing else.
func verify(dir string, sums []byte) error {
	want := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("line %q is no checksum", lines.Text())
		}
		want[name] = sum
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		got, err := sum(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		switch want[e.Name()] {
		case got:
		case "":
			return fmt.Errorf("%s is not in the list of checksums", e.Name())
		default:
			return fmt.Errorf("%s has SHA-256 %s, the list says %s: the download is damaged or not what we tested", e.Name(), got, want[e.Name()])
		}
		delete(want, e.Name())
	}
	for name := range want {
		return fmt.Errorf("%s did not come", name)
	}
	return nil
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Java returns the path of a Java runtime of at least version 17.
func Java() (string, error) {
	const hint = "install a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless)"
	path, err := exec.LookPath("java")
	if home := os.Getenv("JAVA_HOME"); err != nil && home != "" {
		path, err = exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", hint, err)
	}
	out, err := exec.Command(path, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s -version: %w", path, err)
	}
	if v := major(string(out)); v < 17 {
		return "", fmt.Errorf("%s is Java %d: %s", path, v, hint)
	}
	return path, nil
}

// major reads 17 from `openjdk version "17.0.15" 2025-04-15`.
func major(output string) int {
	_, rest, _ := strings.Cut(output, `"`)
	digits := rest[:max(0, strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }))]
	n, _ := strconv.Atoi(digits)
	return n
}
