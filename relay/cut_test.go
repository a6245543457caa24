package relay

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// fate is what becomes of a statement's connection.
type fate int

const (
	spared  fate = iota
	unsent       // cut before the request leaves
	unheard      // cut when the server has answered, before the answer is read
)

var errCut = errors.New("connection cut by the test")

// cutter decides what becomes of each statement of a pool. A statement's kind is
// its text; a commit's includes the statement before it on its connection.
type cutter struct {
	judge func(kind string, n int) fate // n counts the statements of a kind from 1; called alone
	meet  func(kind string)             // called for each, if set

	mu   sync.Mutex
	seen map[string]int
	cuts map[string]map[fate]int // that took place
}

// pool is the database seen by the relay's role, through the cutter. Each statement
// is one message and its answer, so there is no third moment to cut at.
func (c *cutter) pool(t testing.TB, db *database) *pgxpool.Pool {
	c.seen, c.cuts = map[string]int{}, map[string]map[fate]int{}
	cfg := db.relay.Config()
	cfg.MaxConns = 12
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.ConnConfig.Tracer = c
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &cutConn{Conn: conn, cutter: c}, nil
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { go pool.Close() })
	return pool
}

func (c *cutter) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	cc, ok := conn.PgConn().Conn().(*cutConn)
	if !ok {
		panic("a connection that is not the cutter's")
	}
	kind := data.SQL
	if kind == "commit" || kind == "rollback" {
		kind += " after " + cc.last
	}
	cc.last = data.SQL
	c.mu.Lock()
	c.seen[kind]++
	if c.judge != nil {
		cc.kind = kind
		cc.fate.Store(int32(c.judge(kind, c.seen[kind])))
	}
	c.mu.Unlock()
	if c.meet != nil {
		c.meet(kind)
	}
	return ctx
}

func (c *cutter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *cutter) took(kind string, f fate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cuts[kind] == nil {
		c.cuts[kind] = map[fate]int{}
	}
	c.cuts[kind][f]++
}

// lacking lists the relay's statements, but those in except, of which not enough
// have been cut in each way.
func (c *cutter) lacking(q queries, except ...string) (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	statement := func(name, text string) {
		text, _, _ = strings.Cut(text, "{") // the rest depends on slot or order
		text, _, _ = strings.Cut(text, filterMark)
		counts := map[fate]int{}
		for kind, cuts := range c.cuts {
			if strings.HasPrefix(kind, text) {
				for f, n := range cuts {
					counts[f] += n
				}
			}
		}
		if counts[unsent] == 0 || counts[unheard] == 0 {
			list = append(list, name)
		}
	}
	var fields func(v reflect.Value)
	fields = func(v reflect.Value) {
		for i := range v.NumField() {
			switch name := v.Type().Field(i).Name; {
			case v.Field(i).Kind() == reflect.Struct:
				fields(v.Field(i))
			case !slices.Contains(except, name):
				statement(name, v.Field(i).String())
			}
		}
	}
	fields(reflect.ValueOf(q))
	for what, last := range map[string]string{"register": q.registerStart, "take": q.take, "park": q.park, "resolve": q.promote, "cut": q.slotCut, "redrive": inSchema(sqlCountAction, "outbox")} {
		statement("commit of "+what, "commit after "+last)
	}
	return list
}

type cutConn struct {
	net.Conn

	cutter *cutter
	fate   atomic.Int32
	kind   string // of the statement under way
	last   string // text of the statement before
}

func (c *cutConn) Write(b []byte) (int, error) {
	if fate(c.fate.Load()) == unsent {
		return 0, c.cut(unsent)
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && fate(c.fate.Load()) == unheard {
		return 0, c.cut(unheard)
	}
	return n, err
}

func (c *cutConn) cut(f fate) error {
	_ = c.Conn.Close()
	c.cutter.took(c.kind, f)
	return errCut
}

// rejecting refuses some events once: they are dead, and published after a redrive.
func rejecting(got *history) *recorder {
	var mu sync.Mutex
	refused := map[string]bool{}
	flaky := failing(func(m brokers.Message) error {
		mu.Lock()
		defer mu.Unlock()
		id := m.Key + " " + string(m.Payload)
		switch {
		case strings.HasPrefix(m.Key, "key1") && strings.HasSuffix(id, "5") && !refused[id]:
			refused[id] = true
			return errBad
		case strings.HasPrefix(m.Key, "key2") && rand.IntN(40) == 0:
			return errTopic
		}
		return nil
	})
	return &recorder{answer: func(ctx context.Context, call int, msgs []brokers.Message) []error {
		results := flaky(ctx, call, msgs)
		var good []brokers.Message
		for i, err := range results {
			if err == nil {
				good = append(good, msgs[i])
			}
		}
		got.add(good)
		return results
	}}
}

// Two relays, one of which comes and goes, under writers, with parking, redriving
// and truncation: each of their statements loses its connection before it is sent
// and after it was carried out, those of redriving too; then any does, at random.
// Nothing is lost or published out of order, and the relays go on by themselves.
func TestConnectionLossAtAnyStatement(t *testing.T) {
	t.Parallel()
	db := migrated(t, pgtest.Own(t).URL("postgres")) // others' transactions hold truncation back
	db.counters(t)
	rnd := seed(t)
	var random atomic.Bool
	c := &cutter{}
	c.judge = func(kind string, n int) fate {
		switch cuts := c.cuts[kind]; {
		case random.Load() && rand.IntN(40) == 0:
			return fate(1 + rand.IntN(2))
		case n%3 == 0: // passes, so that there is a next one
		case cuts[unsent] < 3 && cuts[unsent] <= cuts[unheard]:
			return unsent
		case cuts[unheard] < 3:
			return unheard
		}
		return spared
	}
	pool := c.pool(t, db)
	got := &history{}
	p := rejecting(got)
	start := func() func() error {
		cfg := config(p)
		cfg.Lease = time.Second
		cfg.Retention = 600 * time.Millisecond
		r := parkingRelay(t, db, cfg)
		r.pool = pool
		r.tune.pageRows, r.tune.pruneAfter, r.tune.retainTick = 500, 5, 30*time.Millisecond
		return running(t, r)
	}
	stop := start()
	l := &load{t: t, db: db, seed: rnd}
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.run(duration(t, 5*time.Second))
	}()
	begin := time.Now()
	redrive := func() { // as a person would: again if it fails
		_, _ = Redrive(t.Context(), pool, "", ParkedFilter{State: stateDead}, ParkedAction{By: "test", Reason: "test"})
	}
	for lives, writing := 0, true; writing; lives++ {
		other := start()
		select {
		case <-written:
			writing = false
		case <-time.After(time.Duration(200+rand.IntN(400)) * time.Millisecond):
		}
		random.Store(time.Since(begin) > duration(t, 5*time.Second)/2)
		redrive()
		require.NoError(t, other())
	}
	random.Store(false)
	want := db.want(t)
	rest := func() []string {
		return c.lacking(newQueries("outbox"),
			"newToken",                       // after a recovery: TestServerCrashes
			"registerCopy", "registerCopied", // in register's transaction, for another way to start
			"schemas",              // events here have none
			"expireParked",         // after a day
			"withdraw", "comeBack", // of an engine that fails for long
			"late", // the same code as fresh; whether there are late rows is chance
		)
	}
	deadline := time.Now().Add(30 * time.Second)
	for (got.missing(want) > 0 || len(rest()) > 0) && time.Now().Before(deadline) {
		redrive()
		if got.missing(want) == 0 { // more occasions for what has not been cut yet
			require.NoError(t, pgx.BeginFunc(t.Context(), db.writer, func(tx pgx.Tx) error {
				return bump(t.Context(), tx, "key", rand.IntN(200), 1)
			}))
			want = db.want(t)
			other := start()
			<-time.After(50 * time.Millisecond)
			require.NoError(t, other())
		}
		<-time.After(tick)
	}
	c.report(t)
	require.Empty(t, rest(), "never cut")
	eventually(t, func() bool { return got.missing(want) == 0 }, "all published")
	require.NoError(t, stop())
	require.Empty(t, got.violations(want, false))
}

func (c *cutter) report(t testing.TB) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := map[fate]int{}
	for _, kind := range slices.Sorted(maps.Keys(c.cuts)) {
		for f, n := range c.cuts[kind] {
			total[f] += n
		}
	}
	statements := 0
	for _, n := range c.seen {
		statements += n
	}
	t.Logf("%d statements of %d kinds, %d cut before they were sent, %d after they were carried out",
		statements, len(c.seen), total[unsent], total[unheard])
}
