package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
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
	s.consumer.Database = as(t, consumerURL, "inbox_consumer")
	writer, err := pgxpool.New(ctx, as(t, shopURL, "outbox_writer"))
	require.NoError(t, err)
	t.Cleanup(writer.Close)

	relay := startRelay(t, as(t, shopURL, "outbox_relay"), s.pipeline)
	consumer := startConsumer(t, s.consumer)

	began := time.Now()
	var rollbacks int64
	var writers errgroup.Group
	writers.Go(func() (err error) {
		rollbacks, err = writeOrders(ctx, writer, s.consumer.Topic, totalOrders, seed)
		return err
	})

	s.chaos(t, rand.New(rand.NewPCG(seed, 99)), shop, effects, relay, consumer)
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
	if report := history.Report(history.Check(written, done)); report != "" {
		t.Error(report)
	}
	require.Zero(t, count(t, effects, "inbox.dead"), "dead letters")
	t.Logf("%d orders committed, %d rolled back, %d effects; relay killed %d times, consumer %d times, broker restarted once; %.1f s",
		len(written), rollbacks, len(done), relay.kills, consumer.kills, took.Seconds())
}

// blow is one thing that goes wrong, at a moment of the run's progress.
type blow struct {
	at   int    // when progress has come so far
	what string // for people
	do   func()
}

// spread makes n blows at random moments, one in each n-th of the run.
func spread(rng *rand.Rand, n int, what string, do func()) []blow {
	var blows []blow
	step := totalOrders * 9 / 10 / n
	for i := range n {
		blows = append(blows, blow{i*step + rng.IntN(step), what, do})
	}
	return blows
}

// chaos deals the blows. Those against relay and broker are timed by committed
// orders, so that they fall into the writing; those against the consumer by
// effects. Most of the first kind must meet events that are not yet known to be
// published: killing an idle relay would prove nothing.
func (s scenario) chaos(t *testing.T, rng *rand.Rand, shop, effects *pgxpool.Pool, relay, consumer *process) {
	t.Helper()
	met := 0
	meeting := func(do func()) func() {
		return func() {
			n := unstored(t, shop)
			t.Logf("  %d events past the stored position", n)
			if n > 0 {
				met++
			}
			do()
		}
	}
	onShop := append(spread(rng, relayKills, "kill relay", meeting(relay.kill)),
		blow{totalOrders/3 + rng.IntN(totalOrders/3), "restart broker", meeting(func() {
			if err := s.restartBroker(t.Context()); err != nil {
				t.Errorf("restart broker: %v", err)
			}
		})})
	onConsumer := spread(rng, consumerKills, "kill consumer", consumer.kill)
	require.Eventually(t, func() bool {
		onShop = deal(t, onShop, "orders", count(t, shop, "orders"))
		onConsumer = deal(t, onConsumer, "effects", count(t, effects, "effects"))
		return len(onShop)+len(onConsumer) == 0
	}, 4*time.Minute, 20*time.Millisecond, "no progress")
	require.GreaterOrEqual(t, met, (relayKills+1)*2/3, "too few blows met the relay at work")
}

// deal does what is due and returns the rest.
func deal(t *testing.T, blows []blow, of string, progress int) []blow {
	t.Helper()
	var later []blow
	for _, b := range blows {
		if b.at > progress {
			later = append(later, b)
			continue
		}
		t.Logf("at %d %s: %s", progress, of, b.what)
		b.do()
	}
	return later
}

// unstored counts the events that a relay would find unpublished if it started
// from what is stored now.
func unstored(t *testing.T, shop *pgxpool.Pool) int {
	t.Helper()
	var n int
	require.NoError(t, shop.QueryRow(t.Context(), `WITH latest AS (
		SELECT DISTINCT ON (q.shard) q.shard, p.s FROM outbox.position p, unnest(p.shards) q(shard) ORDER BY q.shard, p.n DESC)
		SELECT count(*) FROM outbox.event e JOIN latest l ON l.shard = outbox.shard(e.key, e.event_id) WHERE NOT pg_visible_in_snapshot(e.xid, l.s)`).Scan(&n))
	return n
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
		INSERT INTO users SELECT 'user-' || g FROM generate_series(0, `+strconv.Itoa(users-1)+`) g;
		GRANT SELECT, UPDATE ON users TO outbox_writer; GRANT INSERT ON orders TO outbox_writer`)
	require.NoError(t, err)
	return url, pool
}

// consumerDatabase has no unique constraint on effects: a double must show.
func consumerDatabase(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	return consumerDatabaseAt(t, pgtest.URL(t))
}

func consumerDatabaseAt(t *testing.T, address string) (string, *pgxpool.Pool) {
	t.Helper()
	url, pool := databaseAt(t, address, migrate.Inbox(""))
	_, err := pool.Exec(t.Context(), `CREATE TABLE effects (seq bigserial, user_id text NOT NULL, n bigint NOT NULL, event_id text NOT NULL);
		GRANT INSERT ON effects TO inbox_consumer; GRANT USAGE ON SEQUENCE effects_seq_seq TO inbox_consumer`)
	require.NoError(t, err)
	return url, pool
}

// database is migrated, with the printed grants: relay, writers and consumer run
// as roles that have nothing more.
func database(t *testing.T, set migrate.Set) (string, *pgxpool.Pool) {
	t.Helper()
	return databaseAt(t, pgtest.URL(t), set)
}

func databaseAt(t *testing.T, address string, set migrate.Set) (string, *pgxpool.Pool) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return set.Up(t.Context(), c.Conn()) }))
	grants, err := set.Grants(migrate.Roles{})
	require.NoError(t, err)
	// Roles belong to the server: another test may be creating them just now.
	_, err = pool.Exec(t.Context(), `SELECT pg_advisory_lock(42); DO $$ DECLARE r text; BEGIN
		FOREACH r IN ARRAY ARRAY['outbox_writer', 'outbox_relay', 'inbox_consumer'] LOOP
			BEGIN EXECUTE 'CREATE ROLE ' || r || ' LOGIN'; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
		END LOOP; END $$; `+grants+`; SELECT pg_advisory_unlock(42)`)
	require.NoError(t, err)
	return address, pool
}

// as is the database's URL for another role.
func as(t *testing.T, databaseURL, role string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	u.User = url.User(role)
	return u.String()
}

func buildRelay(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "relay")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/relay").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

func startRelay(t *testing.T, databaseURL, pipeline string) *process {
	t.Helper()
	binary, config := buildRelay(t), filepath.Join(t.TempDir(), "relay.yaml")
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
