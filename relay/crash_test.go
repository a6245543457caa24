package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/services/pgbouncer"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// The server crashes every second or two under writers and relay. The token goes,
// positions are loaded again, nothing is lost.
func TestServerCrashes(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t)
	db := migrated(t, server.URL("postgres"))
	db.counters(t)
	got := &history{}
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		got.add(msgs)
		return make([]error, len(msgs))
	}}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageRows, r.tune.split = 50, 10
	stop := running(t, r)
	l := &load{t: t, db: db, seed: seed(t), crashing: true}
	rnd := rand.New(rand.NewPCG(l.seed, 99))
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(t, 8*time.Second))
	}()
	eventually(t, r.owns, "owns")
	first := r.engines[0].session().t.token
	crashes := 0
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		case <-time.After(500*time.Millisecond + time.Duration(rnd.Int64N(int64(1500*time.Millisecond)))):
			crashes++
			require.NoError(t, server.Kill())
			require.NoError(t, server.Start(context.Background()))
		}
	}
	require.Positive(t, crashes)
	want := db.want(t)
	eventually(t, func() bool { return got.missing(want) == 0 }, "all published")
	eventually(t, r.owns, "owns")
	require.NotEqual(t, first, r.engines[0].session().t.token, "crashes were noticed")
	require.NoError(t, stop())
	require.Empty(t, got.violations(want, false))
	t.Logf("%d crashes, %d failed transactions", crashes, l.errs.Load())
}

// An idle relay writes no position and uses no transaction id; one that a slot
// waits for writes one.
func TestIdleRelayWritesNothing(t *testing.T) {
	t.Parallel()
	db := migrated(t, pgtest.Own(t).URL("postgres"))
	p := &recorder{}
	cfg := config(p)
	cfg.Lease = time.Hour // no heartbeat meanwhile
	r := newRelay(t, db.relay, cfg)
	running(t, r)
	db.write(t, "k", "1")
	state := func() string {
		return scan[string](t, db.admin, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text || ' ' || coalesce((SELECT max(n) FROM outbox.position), 0)`)
	}
	var before string
	probes := func(n int64) {
		from := db.relay.Stat().AcquireCount()
		eventually(t, func() bool { return db.relay.Stat().AcquireCount() >= from+n }, "probes")
	}
	eventually(t, func() bool {
		before = state()
		probes(20)
		return r.caughtUp() && state() == before
	}, "at rest")
	probes(50)
	require.Equal(t, before, state())

	rows := scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`)
	slot := db.slot(t)
	db.old(t, slot)
	for range 3 {
		require.NoError(t, r.retainOnce(t.Context()))
	}
	require.Zero(t, db.inSlot(t, slot), "truncated")
	require.LessOrEqual(t, scan[int](t, db.admin, `SELECT count(*) FROM outbox.position`), rows+1)
}

// A standby that lags behind is promoted while the relay is alive. The new primary
// hands out xids and ids again that the relay's memory has passed. Negative
// control: without the token the next events are lost for good.
func TestFailoverToALaggingStandby(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pooler, broken bool }{
		"direct": {}, "through pgbouncer": {pooler: true}, "negative control": {broken: true},
	} {
		t.Run(name, func(t *testing.T) { failover(t, c.pooler, c.broken) })
	}
}

func failover(t *testing.T, pooler, broken bool) {
	ctx := t.Context()
	if err := pgbouncer.Available(); pooler && err != nil {
		skip(t, err.Error())
	}
	primary := pgtest.Own(t)
	db := migrated(t, primary.URL("postgres"))
	standby, err := primary.Standby(ctx, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close(context.Background())) })
	pool, route := routed(t, primary, pooler)
	p := &recorder{}
	r := newRelay(t, pool, config(p))
	if broken {
		ignoreToken(r)
	}
	running(t, r)
	db.write(t, "k", "before")
	eventually(t, func() bool { return len(p.messages()) == 1 && r.caughtUp() }, "before")
	require.NoError(t, standby.CatchUp(ctx, primary))
	require.NoError(t, standby.Detach(ctx))
	for i := range 100 { // Postgres will forget these
		db.write(t, "k", fmt.Sprint("forgotten ", i))
	}
	eventually(t, func() bool { return len(p.messages()) == 101 && r.caughtUp() }, "forgotten, but published")
	require.NoError(t, primary.Kill())
	require.NoError(t, standby.Promote(ctx))
	after := opened(t, standby.URL("postgres"))
	want := []string{}
	for i := range 3 { // before the relay sees the new primary for the first time
		after.write(t, "k", fmt.Sprint("after ", i))
		want = append(want, fmt.Sprint("after ", i))
	}
	route(standby)
	survivors := func() []string {
		list := []string{}
		for _, text := range p.payloads() {
			if strings.HasPrefix(text, "after") {
				list = append(list, text)
			}
		}
		return list
	}
	if broken {
		from := pool.Stat().AcquireCount()
		eventually(t, func() bool { return pool.Stat().AcquireCount() > from+100 && r.caughtUp() }, "has looked")
		require.Empty(t, survivors(), "the control must lose them")
		return
	}
	eventually(t, func() bool { return len(survivors()) >= 3 }, "published after the failover")
	after.write(t, "k", "after 3")
	want = append(want, "after 3")
	eventually(t, func() bool { return len(survivors()) >= 4 }, "goes on")
	require.Equal(t, want, survivors())
}

// routed returns a pool whose connections can be sent to another server.
func routed(t *testing.T, to *postgres.Server, pooler bool) (*pgxpool.Pool, func(*postgres.Server)) {
	var port atomic.Int32
	dsn := to.URL("postgres")
	redirect := func(s *postgres.Server) { port.Store(int32(s.Port())) }
	if pooler {
		bouncer, err := pgbouncer.Start(t.Context(), to.Addr())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, bouncer.Close(context.Background())) })
		dsn = bouncer.URL("postgres")
		redirect = func(s *postgres.Server) { require.NoError(t, bouncer.Route(t.Context(), s.Addr())) }
	} else {
		u, err := url.Parse(dsn)
		require.NoError(t, err)
		u.User = url.User("outbox_relay") // the pooler logs in as postgres
		dsn = u.String()
		redirect(to)
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	if !pooler {
		cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			c.Port = uint16(port.Load())
			return nil
		}
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { go pool.Close() })
	return pool, redirect
}

// ignoreToken makes every look at the incarnation find the same one.
func ignoreToken(r *Relay) {
	const constant = `'00000000-0000-0000-0000-000000000001'::uuid`
	r.q.token = `SELECT ` + constant
	for _, q := range []*string{&r.q.probe, &r.q.late, &r.q.fresh, &r.q.flush, &r.q.load, &r.q.look} {
		*q = strings.ReplaceAll(*q, "(SELECT token FROM outbox.incarnation)", constant)
	}
}
