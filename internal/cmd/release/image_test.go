package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// image is what a Containerfile of ours says, which has few instructions.
type image struct {
	copies     map[string]string // to from
	user       uint32
	entrypoint []string
	command    []string
}

var quoted = regexp.MustCompile(`"([^"]*)"`)

func words(list string) (all []string) {
	for _, m := range quoted.FindAllStringSubmatch(list, -1) {
		all = append(all, m[1])
	}
	return all
}

func readImage(t *testing.T, path string) image {
	t.Helper()
	i := image{copies: map[string]string{}}
	for line := range strings.Lines(read(t, path)) {
		line = strings.ReplaceAll(strings.TrimSpace(line), "${TARGETARCH}", runtime.GOARCH)
		if line == "" || line[0] == '#' {
			continue
		}
		instruction, rest, _ := strings.Cut(line, " ")
		switch instruction {
		case "FROM":
			require.Equal(t, "scratch", rest, "whatever else is in the image has to be kept up to date")
		case "ARG", "STOPSIGNAL":
		case "COPY":
			from, to, ok := strings.Cut(rest, " ")
			require.True(t, ok, line)
			i.copies[to] = from
		case "USER":
			uid, err := strconv.ParseUint(strings.Split(rest, ":")[0], 10, 32)
			require.NoError(t, err, "Kubernetes' runAsNonRoot needs a number")
			i.user = uint32(uid)
		case "ENTRYPOINT":
			i.entrypoint = words(rest)
		case "CMD":
			i.command = words(rest)
		default:
			t.Fatalf("%s: this test does not know %s", path, instruction)
		}
	}
	require.NotZero(t, i.user, "root")
	return i
}

// imageRuns lays the image out in a folder and runs it there as its user, with no
// file but its own to be seen and none to be written: it migrates a real Postgres,
// publishes to a broker, and drains when it is told to end.
func imageRuns(t *testing.T, r *release) {
	i := readImage(t, filepath.Join(r.root, "deploy", "Containerfile"))
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		svctest.Missing(t, "running the image in a root folder of its own needs Linux and root")
	}
	root := t.TempDir()
	for to, from := range i.copies {
		place(t, root, to, []byte(read(t, filepath.Join(r.out, from))), 0o755)
	}
	url := pgtest.URL(t)
	broker := svctest.FakeKafka(t).ListenAddrs()[0]
	place(t, root, "/etc/outboxkit/relay.yaml", fmt.Appendf(nil,
		"database: {url: %q}\npipelines:\n  - name: kafka\n    kafka: {brokers: [%q]}\n", url, broker), 0o644)
	require.NoError(t, os.Chmod(root, 0o555))
	t.Cleanup(func() { _ = os.Chmod(root, 0o755) })

	var said lines
	migrate := i.run(t, root, &said, slices.Concat(i.entrypoint, []string{"migrate", "up", "outbox"}))
	migrate.Env = []string{"DATABASE_URL=" + url}
	require.NoError(t, migrate.Run(), said.String())
	require.Contains(t, said.String(), "schema outbox: version")

	var log lines
	relay := i.run(t, root, &log, slices.Concat(i.entrypoint, i.command))
	require.NoError(t, relay.Start())
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	require.Eventuallyf(t, func() (works bool) {
		err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM outbox.lease WHERE owner <> '')`).Scan(&works)
		return err == nil && works
	}, 30*time.Second, 20*time.Millisecond, "it has no lease")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", relay.Process.Pid))
	require.NoError(t, err)
	require.Regexp(t, fmt.Sprintf(`(?m)^Uid:\t%d\t`, i.user), string(status))
	require.NoError(t, relay.Process.Signal(syscall.SIGTERM))
	require.NoError(t, relay.Wait(), log.String())
	require.Contains(t, log.String(), "drained and stopped")
}

// place puts a file into the image's root folder.
func place(t *testing.T, root, path string, text []byte, mode os.FileMode) {
	t.Helper()
	path = filepath.Join(root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, text, mode))
}

func (i image) run(t *testing.T, root string, out *lines, args []string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: root, Credential: &syscall.Credential{Uid: i.user, Gid: i.user}, Pdeathsig: syscall.SIGKILL,
	}
	return cmd
}

// lines collects what a process prints while others read it.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
