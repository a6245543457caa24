package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

// scenario is one run over one broker.
type scenario struct {
	pipeline      string       // YAML of the relay's pipeline, indented by four
	consumer      consumerSpec // Database is filled in
	restartBroker func(ctx context.Context) error
}

const (
	totalOrders   = 20_000
	relayKills    = 6
	consumerKills = 4
)

func (s scenario) run(t *testing.T) {
	ctx := t.Context()
	seed := seedOf(t)
	shopURL, shop := producerDatabase(t)
	consumerURL, effects := consumerDatabase(t)
	s.consumer.Database = consumerURL

	relay := startRelay(t, shopURL, s.pipeline)
	consumer := startConsumer(t, s.consumer)

	began := time.Now()
	var rollbacks int64
	var writers errgroup.Group
	writers.Go(func() (err error) {
		rollbacks, err = writeOrders(ctx, shop, s.consumer.Topic, totalOrders, seed)
		return err
	})

	s.chaos(t, rand.New(rand.NewPCG(seed, 99)), effects, relay, consumer)
	require.NoError(t, writers.Wait())
	written := writes(t, shop)
	require.Len(t, written, totalOrders)
	require.Eventually(t, func() bool { return count(t, effects, "effects") >= totalOrders }, 3*time.Minute, 100*time.Millisecond,
		"every committed order takes effect in the end")
	took := time.Since(began)

	// SIGTERM drains: a clean exit, and nothing more happens afterwards.
	require.NoError(t, relay.signal(syscall.SIGTERM), "relay")
	require.NoError(t, consumer.signal(syscall.SIGTERM), "consumer")

	done := effectsOf(t, effects)
	for _, v := range history.Check(written, done) {
		t.Error(v)
	}
	require.Zero(t, count(t, effects, "inbox.dead"), "dead letters")
	t.Logf("%d orders committed, %d rolled back, %d effects; relay killed %d times, consumer %d times, broker restarted once; %.1f s",
		len(written), rollbacks, len(done), relay.kills, consumer.kills, took.Seconds())
}

// chaos kills at random points of the run's progress, measured in effects, so
// that every kill falls into the traffic on machines of any speed.
func (s scenario) chaos(t *testing.T, rng *rand.Rand, effects *pgxpool.Pool, relay, consumer *process) {
	t.Helper()
	type blow struct {
		at   int
		what string
		do   func()
	}
	var blows []blow
	spread := func(n int, what string, do func()) {
		step := totalOrders * 9 / 10 / n
		for i := range n {
			blows = append(blows, blow{i*step + rng.IntN(step), what, do})
		}
	}
	spread(relayKills, "kill relay", relay.kill)
	spread(consumerKills, "kill consumer", consumer.kill)
	blows = append(blows, blow{totalOrders/3 + rng.IntN(totalOrders/3), "restart broker", func() {
		if err := s.restartBroker(t.Context()); err != nil {
			t.Errorf("restart broker: %v", err)
		}
	}})
	for len(blows) > 0 {
		n := 0
		require.Eventually(t, func() bool {
			n = count(t, effects, "effects")
			return n >= nextBlow(blows, func(b blow) int { return b.at })
		},
			2*time.Minute, 20*time.Millisecond, "no progress")
		var later []blow
		for _, b := range blows {
			if b.at > n {
				later = append(later, b)
				continue
			}
			t.Logf("at %d effects: %s", n, b.what)
			b.do()
		}
		blows = later
	}
}

func nextBlow[T any](blows []T, at func(T) int) int {
	first := at(blows[0])
	for _, b := range blows {
		first = min(first, at(b))
	}
	return first
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("OUTBOXKIT_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("OUTBOXKIT_SEED=%d", seed)
	return seed
}

// producerDatabase is the shop's: its own tables and the outbox.
func producerDatabase(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	url, pool := database(t, migrate.Outbox(""))
	_, err := pool.Exec(t.Context(), `CREATE TABLE users (id text PRIMARY KEY, orders bigint NOT NULL DEFAULT 0);
		CREATE TABLE orders (user_id text NOT NULL, n bigint NOT NULL);
		INSERT INTO users SELECT 'user-' || g FROM generate_series(0, `+strconv.Itoa(users-1)+`) g`)
	require.NoError(t, err)
	return url, pool
}

// consumerDatabase has no unique constraint on effects: a double must show.
func consumerDatabase(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	url, pool := database(t, migrate.Inbox(""))
	_, err := pool.Exec(t.Context(), `CREATE TABLE effects (seq bigserial, user_id text NOT NULL, n bigint NOT NULL, event_id text NOT NULL)`)
	require.NoError(t, err)
	return url, pool
}

func database(t *testing.T, set migrate.Set) (string, *pgxpool.Pool) {
	t.Helper()
	url := pgtest.URL(t)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return set.Up(t.Context(), c.Conn()) }))
	return url, pool
}

func startRelay(t *testing.T, databaseURL, pipeline string) *process {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "relay")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/relay").CombinedOutput()
	require.NoError(t, err, "%s", out)
	config := filepath.Join(t.TempDir(), "relay.yaml")
	// A short lease, so that a killed relay's successor starts soon.
	text := fmt.Sprintf("database:\n  url: %q\nlease: 2s\ndrain_timeout: 10s\npipelines:\n  - name: e2e\n%s", databaseURL, pipeline)
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	return start(t, "relay", func() *exec.Cmd { return exec.Command(binary, "run", "--config", config) })
}

func startConsumer(t *testing.T, spec consumerSpec) *process {
	t.Helper()
	specJSON, err := json.Marshal(spec)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	return start(t, "consumer", func() *exec.Cmd {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envConsumer+"="+string(specJSON))
		return cmd
	})
}

func count(t *testing.T, pool *pgxpool.Pool, table string) int {
	t.Helper()
	var n int
	require.NoError(t, pool.QueryRow(context.Background(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

func writes(t *testing.T, pool *pgxpool.Pool) []history.Write {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT user_id, n FROM orders`)
	require.NoError(t, err)
	w, err := pgx.CollectRows(rows, pgx.RowToStructByPos[history.Write])
	require.NoError(t, err)
	return w
}

func effectsOf(t *testing.T, pool *pgxpool.Pool) []history.Effect {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT user_id, n, seq FROM effects`)
	require.NoError(t, err)
	e, err := pgx.CollectRows(rows, pgx.RowToStructByPos[history.Effect])
	require.NoError(t, err)
	return e
}
