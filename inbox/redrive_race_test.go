package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/history"
)

// Three inboxes that each get every message, whose handlers fail at random and whose
// connections are cut before and after each statement of a redrive, and at random
// before and after any other, while somebody redrives all the time and new events of
// the same keys arrive: in the end every event has taken effect once, in the order of
// its key.
func TestRedriveWhileConnectionsBreak(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newCutting()
	var healed atomic.Bool
	handle := func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if err := insert("inventory")(ctx, tx, e); err != nil {
			return err
		}
		if !healed.Load() && rand.IntN(4) == 0 {
			return inbox.Permanent(errBroken)
		}
		return nil
	}
	var members []*running
	for i := range 3 {
		through := *w
		through.pool = c.pool(t, w.url)
		cfg := w.config("inventory")
		cfg.From = w.broker.Subscriber(fmt.Sprint("member", i), "orders")
		members = append(members, through.redriving(cfg, handle))
	}
	redriven := int64(0)
	redrive := func() {
		n, err := inbox.Redrive(t.Context(), w.pool, "", inbox.DeadFilter{}, why)
		require.NoError(t, err)
		redriven += n
	}
	var written []history.Write
	n := map[string]int64{}
	for began := time.Now(); len(written) < 1000 || len(c.lacking()) > 0; {
		require.Less(t, time.Since(began), time.Minute, "%v", c.lacking())
		key := fmt.Sprint("k", rand.IntN(8))
		n[key]++
		w.publish(message(key, int(n[key])))
		written = append(written, history.Write{Key: key, N: n[key]})
		if len(written)%10 == 0 {
			redrive()
			eventually(t, "room", func() bool { return w.broker.Unacked("member0", "orders") < 100 })
		}
	}
	healed.Store(true)
	c.calm.Store(true)
	for i := range members {
		w.settled(fmt.Sprint("member", i))
	}
	eventually(t, "everything to be redriven", func() bool {
		redrive()
		return w.count(`SELECT count(*) FROM inbox.dead WHERE state <> 'redriven'`) == 0
	})
	for _, m := range members {
		require.NoError(t, m.end())
	}
	require.Empty(t, history.Report(history.Check(written, w.history())))
	t.Logf("%d events, %d times redriven, %d connections cut", len(written), redriven, c.cuts.Load())
	require.Greater(t, w.count(`SELECT count(*) FROM inbox.dead WHERE reason = 'blocked'`), 10)
	require.Greater(t, redriven, int64(20))
}

// history is what has taken effect.
func (w *world) history() []history.Effect {
	w.t.Helper()
	rows, err := w.pool.Query(context.Background(), `SELECT key, n, at FROM effect`)
	require.NoError(w.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[history.Effect])
	require.NoError(w.t, err)
	return all
}

// What becomes of a connection with its next statement.
const (
	spared  = iota
	unsent  // cut before the request leaves
	unheard // cut when the server has answered
)

var errCut = errors.New("connection cut by the test")

// cutting cuts connections of its pools at chosen statements.
type cutting struct {
	calm atomic.Bool // no more
	cuts atomic.Int64

	mu   sync.Mutex
	left map[string]map[int32]bool // statement, fates that it has not met yet
	name map[string]string
}

func newCutting() *cutting {
	c := &cutting{left: map[string]map[int32]bool{}, name: map[string]string{}}
	for name, text := range inbox.RedriveStatements() {
		c.left[text], c.name[text] = map[int32]bool{unsent: true, unheard: true}, name
	}
	return c
}

func (c *cutting) lacking() (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for text, fates := range c.left {
		if len(fates) > 0 {
			list = append(list, fmt.Sprint(c.name[text], fates))
		}
	}
	return list
}

func (c *cutting) pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	cfg.MaxConns = 8
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // a message and its answer
	cfg.ConnConfig.Tracer = c
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &cutConn{Conn: conn, cutting: c}, err
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (c *cutting) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	c.decide(conn, data.SQL)
	return ctx
}

func (c *cutting) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *cutting) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	if q := data.Batch.QueuedQueries; len(q) > 0 {
		c.decide(conn, q[0].SQL)
	}
	return ctx
}

func (c *cutting) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (c *cutting) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func (c *cutting) decide(conn *pgx.Conn, text string) {
	cc := conn.PgConn().Conn().(*cutConn) //nolint:forcetypeassert // all of the pool's are
	kind := text
	if text == "commit" {
		kind = "commit after " + cc.last
	}
	c.mu.Lock() // pgx may still be closing the connection
	cc.last, cc.kind = text, kind
	c.mu.Unlock()
	if c.calm.Load() {
		return
	}
	f := int32(1 + rand.IntN(2))
	c.mu.Lock()
	wanted := c.left[kind][f]
	c.mu.Unlock()
	if wanted && rand.IntN(3) == 0 || rand.IntN(60) == 0 {
		cc.fate.Store(f)
	}
}

type cutConn struct {
	net.Conn

	cutting    *cutting
	fate       atomic.Int32
	last, kind string
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.fate.Load() == unsent {
		return 0, c.cut(unsent)
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.fate.Load() == unheard {
		return 0, c.cut(unheard)
	}
	return n, err
}

func (c *cutConn) cut(f int32) error {
	_ = c.Close()
	c.cutting.mu.Lock()
	defer c.cutting.mu.Unlock()
	delete(c.cutting.left[c.kind], f)
	c.cutting.cuts.Add(1)
	return errCut
}
