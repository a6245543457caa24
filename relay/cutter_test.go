package relay

import (
	"context"
	"errors"
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
)

// fate is what becomes of a statement's connection.
type fate int

const (
	spared  fate = iota
	unsent       // cut before the request leaves
	unheard      // cut when the server has answered, before the answer is read
	silent       // the answer never comes, and the connection stays
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
	long []string                // kinds that waited too long for an answer
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

// flushTimeout is the longest that a statement may take.
func (c *cutter) waited(kind string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d > flushTimeout+time.Second {
		c.long = append(c.long, d.String()+" "+kind)
	}
}

// notCut are statements that the runs do not need.
var notCut = []string{
	"newToken",                       // after a recovery: TestServerCrashes
	"registerCopy", "registerCopied", // in register's transaction, for another way to start
	"schemas",              // events here have none
	"expireParked",         // after a day
	"withdraw", "comeBack", // of an engine that fails for long
	"late", // the same code as fresh; whether there are late rows is chance
}

// lacking lists the relay's statements that have not met each of the fates yet.
func (c *cutter) lacking(q queries, fates ...fate) (list []string) {
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
		for _, f := range fates {
			if counts[f] == 0 {
				list = append(list, name)
				return
			}
		}
	}
	var fields func(v reflect.Value)
	fields = func(v reflect.Value) {
		for i := range v.NumField() {
			switch name := v.Type().Field(i).Name; {
			case v.Field(i).Kind() == reflect.Struct:
				fields(v.Field(i))
			case !slices.Contains(notCut, name):
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
	if err != nil {
		return n, err
	}
	switch fate(c.fate.Load()) {
	case unheard:
		return 0, c.cut(unheard)
	case silent:
		c.cutter.took(c.kind, silent)
		began := time.Now()
		for err == nil { // until the reader's deadline
			_, err = c.Conn.Read(b)
		}
		c.cutter.waited(c.kind, time.Since(began))
		return 0, err
	}
	return n, err
}

func (c *cutConn) cut(f fate) error {
	_ = c.Conn.Close()
	c.cutter.took(c.kind, f)
	return errCut
}

func (c *cutter) report(t testing.TB) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := map[fate]int{}
	for _, cuts := range c.cuts {
		for f, n := range cuts {
			total[f] += n
		}
	}
	statements := 0
	for _, n := range c.seen {
		statements += n
	}
	t.Logf("%d statements of %d kinds, %d cut before they were sent, %d after they were carried out, %d without an answer",
		statements, len(c.seen), total[unsent], total[unheard], total[silent])
}
