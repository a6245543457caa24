package relay

import (
	"context"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/migrate"
)

func TestMain(m *testing.M) {
	if relayProcess() {
		return
	}
	pgtest.Main(m)
}

// database is a migrated outbox, with a pool for each role that touches it.
type database struct {
	url    string
	admin  *pgxpool.Pool
	writer *pgxpool.Pool // outbox_writer, with the printed grants
	relay  *pgxpool.Pool // outbox_relay, with the printed grants
}

const roles = `DO $$ DECLARE r text; BEGIN
  FOREACH r IN ARRAY ARRAY['outbox_writer', 'outbox_relay'] LOOP
    BEGIN EXECUTE format('CREATE ROLE %I LOGIN', r);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
  END LOOP; END $$`

func newDatabase(t testing.TB) *database { return migrated(t, pgtest.URL(t)) }

// migrated prepares the database at a superuser's URL.
func migrated(t testing.TB, url string) *database {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer conn.Close(ctx)
	require.NoError(t, migrate.Outbox("").Up(ctx, conn))
	_, err = conn.Exec(ctx, roles)
	require.NoError(t, err)
	grants, err := migrate.Outbox("").Grants(migrate.Roles{})
	require.NoError(t, err)
	_, err = conn.Exec(ctx, grants)
	require.NoError(t, err)
	return opened(t, url)
}

// opened has pools for a database that is there already.
func opened(t testing.TB, url string) *database {
	return &database{
		url:    url,
		admin:  poolAs(t, url, "", 40),
		writer: poolAs(t, url, "outbox_writer", 30),
		relay:  poolAs(t, url, "outbox_relay", 6),
	}
}

func poolAs(t testing.TB, dsn, user string, size int32) *pgxpool.Pool {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	if user != "" {
		u.User = url.User(user)
	}
	cfg, err := pgxpool.ParseConfig(u.String())
	require.NoError(t, err)
	cfg.MaxConns = size
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { go pool.Close() })
	return pool
}

// write inserts one event as a service would by hand.
func (db *database) write(t testing.TB, key, payload string) {
	t.Helper()
	_, err := db.writer.Exec(t.Context(), insert, key, payload)
	require.NoError(t, err)
}

const insert = `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ('t', $1, 'test', '/test', convert_to($2, 'UTF8'))`

func (db *database) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := db.admin.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func scan[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

// recorder is a publisher that remembers what it was given.
type recorder struct {
	mu    sync.Mutex
	sent  []brokers.Message
	calls int
	// answer decides the results; nil = all confirmed. Called without the lock.
	answer func(ctx context.Context, call int, msgs []brokers.Message) []error
}

func (p *recorder) Publish(ctx context.Context, msgs []brokers.Message) []error {
	p.mu.Lock()
	call := p.calls
	p.calls++
	p.mu.Unlock()
	results := make([]error, len(msgs))
	if p.answer != nil {
		results = p.answer(ctx, call, msgs)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, m := range msgs {
		if results[i] == nil {
			p.sent = append(p.sent, m)
		}
	}
	return results
}

func (p *recorder) Close() error { return nil }

func (p *recorder) messages() []brokers.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]brokers.Message(nil), p.sent...)
}

// payloads are the payloads published so far, as text, in order.
func (p *recorder) payloads() []string {
	list := []string{}
	for _, m := range p.messages() {
		list = append(list, string(m.Payload))
	}
	return list
}

func config(to brokers.Publisher) Config {
	return Config{Pipelines: []Pipeline{{Name: "test", To: to}}}
}

// newRelay changes cfg's tuning to test speed.
func newRelay(t testing.TB, pool *pgxpool.Pool, cfg Config) *Relay {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)) // shown when the test fails
	r, err := New(pool, cfg)
	require.NoError(t, err)
	r.tune.flushEvery = 20 * time.Millisecond
	r.tune.pollMax = 10 * time.Millisecond
	r.tune.standby = 20 * time.Millisecond
	r.tune.retryMax = 100 * time.Millisecond
	r.tune.badMax = 100 * time.Millisecond
	return r
}

// running runs r until stop is called or the test ends; stop waits for Run and
// returns its error.
func running(t testing.TB, r *Relay) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

const (
	patience = 30 * time.Second
	tick     = 5 * time.Millisecond
)

func eventually(t testing.TB, condition func() bool, msg string, args ...any) {
	t.Helper()
	require.Eventuallyf(t, condition, patience, tick, msg, args...)
}

func (r *Relay) caughtUp() bool { return r.Stats().Pipelines[0].CaughtUp }
