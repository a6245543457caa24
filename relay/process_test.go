package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

const childPage = 50 // rows

const (
	childURL  = "OUTBOXKIT_TEST_RELAY_URL"
	childFile = "OUTBOXKIT_TEST_RELAY_FILE"
	childTerm = "OUTBOXKIT_TEST_RELAY_LEASE"
)

// relayProcess is what the test binary does when a test has started it as a relay:
// publish to a file until SIGTERM, or until the test process is gone.
func relayProcess() bool {
	url := os.Getenv(childURL)
	if url == "" {
		return false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		os.Exit(3)
	}()
	if err := runChild(ctx, url, os.Getenv(childFile)); err != nil {
		fmt.Fprintln(os.Stderr, "relay process:", err)
		os.Exit(1)
	}
	return true
}

func runChild(ctx context.Context, url, file string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	broker, err := childBroker(file)
	if err != nil {
		return err
	}
	defer broker.Close()
	cfg := config(flakyBroker{broker})
	if cfg.Lease, err = time.ParseDuration(os.Getenv(childTerm)); err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	r, err := New(pool, cfg)
	if err != nil {
		return err
	}
	r.tune.pageRows, r.tune.split = childPage, childPage/5
	r.tune.flushEvery = 50 * time.Millisecond
	r.tune.standby = 20 * time.Millisecond
	r.tune.park.topicTrip, r.tune.park.every = 1, 10*time.Millisecond
	r.tune.park.base, r.tune.park.max, r.tune.park.attempts = 10*time.Millisecond, 40*time.Millisecond, 1000
	r.tune.badMax = 100 * time.Millisecond
	return r.Run(ctx)
}

// childBroker is a file, or the record that listens on a unix socket.
func childBroker(path string) (brokers.Publisher, error) {
	if strings.HasSuffix(path, ".sock") {
		return dialRecord(path)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return fileBroker{f}, err
}

// fileBroker appends a line for each event, and confirms it when it is written.
// A SIGKILL may tear a line: a whole one ends with a semicolon.
type fileBroker struct{ f *os.File }

func (b fileBroker) Publish(_ context.Context, msgs []brokers.Message) []error {
	results := make([]error, len(msgs))
	for len(msgs) > 0 { // in small writes, so that kills fall in between
		n := min(len(msgs), 10)
		text := []byte{'\n'}
		for _, m := range msgs[:n] {
			text = fmt.Appendf(text, "%s %s;\n", m.Key, m.Payload)
		}
		if _, err := b.f.Write(text); err != nil {
			panic(err)
		}
		msgs = msgs[n:]
	}
	return results
}

func (b fileBroker) Close() error { return b.f.Close() }

func readFile(t testing.TB, file string) *history {
	t.Helper()
	data, err := os.ReadFile(file)
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	h := &history{}
	for line := range strings.Lines(string(data)) {
		line, whole := strings.CutSuffix(line, ";\n")
		if key, n, ok := strings.Cut(line, " "); ok && whole {
			h.add([]brokers.Message{{Key: key, Payload: []byte(n)}})
		}
	}
	return h
}

type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   bytes.Buffer
}

func startChild(t testing.TB, db *database, file string) *child {
	t.Helper()
	return startChildAt(t, db.relay.Config().ConnString(), file, time.Second)
}

func startChildAt(t testing.TB, dsn, file string, lease time.Duration) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childURL+"="+dsn, childFile+"="+file, childTerm+"="+lease.String())
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	stdin, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	c.stdin = stdin
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

func (c *child) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(s))
}

// Relay processes are killed at random moments while writers write. Nothing is
// lost, and first publications are in order.
func TestSIGKILL(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.counters(t)
	file := filepath.Join(t.TempDir(), "published")
	l := &load{t: t, db: db, seed: seed(t)}
	r := rand.New(rand.NewPCG(l.seed, 99))
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(t, 8*time.Second))
	}()
	kills := 0
	for writing := true; writing; kills++ {
		c := startChild(t, db, file)
		select {
		case <-written:
			writing = false
		case <-time.After(100*time.Millisecond + time.Duration(r.Int64N(int64(1500*time.Millisecond)))):
		}
		c.signal(t, syscall.SIGKILL)
		_ = c.cmd.Wait()
		if r.IntN(3) > 0 { // do not always wait for the lease to run out
			db.exec(t, `DELETE FROM outbox.instance`)
		}
	}
	c := startChild(t, db, file)
	want := db.want(t)
	eventually(t, func() bool { return readFile(t, file).missing(want) == 0 }, "all published")
	c.signal(t, syscall.SIGTERM)
	require.NoError(t, c.cmd.Wait(), c.out.String())
	got := readFile(t, file)
	require.Empty(t, got.violations(want, false))
	published, committed := 0, 0
	for key, n := range want {
		committed += n
		published += len(got.keys[key])
	}
	t.Logf("%d kills, %d events, %d publications repeated", kills, committed, published-committed)
}

// A process that is stopped (a debugger, a frozen container) for longer than its
// lease publishes nothing afterwards that another instance has taken over.
func TestSIGSTOP(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	file := filepath.Join(t.TempDir(), "published")
	c := startChild(t, db, file)
	db.write(t, "k", "1")
	eventually(t, func() bool { return len(readFile(t, file).keys["k"]) == 1 }, "first")
	c.signal(t, syscall.SIGSTOP)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	running(t, r)
	db.write(t, "k", "2")
	eventually(t, func() bool { l := p.payloads(); return len(l) > 0 && l[len(l)-1] == "2" }, "the other took over")
	db.write(t, "k", "3")
	c.signal(t, syscall.SIGCONT)
	db.shared(t, 32, 32) // joined again, under a new name
	db.write(t, "k", "4")
	child := func() []int { return readFile(t, file).keys["k"] }
	eventually(t, func() bool { l := p.payloads(); return l[len(l)-1] == "4" || len(child()) > 1 }, "goes on")
	if published := child(); len(published) > 1 { // the key's shard is the child's again
		require.Equal(t, []int{1, 4}, published)
	}
	require.Contains(t, p.payloads(), "3")
	c.signal(t, syscall.SIGTERM)
	require.NoError(t, c.cmd.Wait(), c.out.String())
}

// A process that is frozen in the middle of a backlog publishes, when it wakes up
// after its lease, the rest of the calls in which it was handing events to the broker,
// and nothing else.
func TestFrozenProcessPublishesOnlyWhatWasOnItsWay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const events = 20_000
	db.exec(t, `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't', 'k' || g % 10, 'test', '/test', convert_to((g / 10 + 1)::text, 'UTF8') FROM generate_series(0, $1::int - 1) g`, events)
	rec := newRecord(t)
	c := startChildAt(t, db.relay.Config().ConnString(), rec.path, time.Second)
	eventually(t, func() bool { return rec.published() > 500 }, "at work")
	c.signal(t, syscall.SIGSTOP)
	require.Less(t, rec.published(), events*3/4, "frozen in the middle")
	frozen := scan[string](t, db.admin, `SELECT name FROM outbox.instance`)
	broker, err := dialRecord(rec.path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = broker.Close() }) // after the relay has stopped
	r := newRelay(t, db.relay, config(broker))
	running(t, r)
	want := map[string]int{}
	for k := range 10 {
		want[fmt.Sprint("k", k)] = events / 10
	}
	eventually(t, func() bool { return rec.missing(want) == 0 && r.caughtUp() }, "taken over")
	before := rec.published()
	c.signal(t, syscall.SIGCONT)
	db.shared(t, 32, 32)
	require.Zero(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.instance WHERE name = $1`, frozen), "it has a new name")
	c.signal(t, syscall.SIGTERM)
	require.NoError(t, c.cmd.Wait(), c.out.String())
	require.LessOrEqual(t, rec.published()-before, 2*childPage) // a share of each class, of both pages
	require.Empty(t, rec.violations(want, false))
	t.Logf("%d events published after waking up", rec.published()-before)
}
