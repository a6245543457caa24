package inboxtest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// watch sees each statement of a pool before it is sent. It breaks connections,
// and notes what handlers do outside the inbox's transaction.
type watch struct {
	crashes bool // break each event's connection twice
	linger  bool // let transactions overlap
	msgs    []brokers.Message
	index   map[string]int // of a message, by its id
	point   []int          // by message: at which statement of its handler to break

	mu      sync.Mutex
	open    map[*pgx.Conn]*openTx
	broken  []int                 // by message: how often
	outside map[string]*statement // by text
	ended   int                   // transactions that were gone when the inbox came to commit
}

// openTx is the latest transaction of a connection.
type openTx struct {
	inboxs     bool        // begun by the inbox, not by a handler
	statements map[int]int // of handlers, by message; 0 for one that is only known to be handled
}

// statement is one that a handler ran outside.
type statement struct {
	times int
	msg   int // of the first time
}

func newWatch(r run, seed uint64, msgs []brokers.Message) *watch {
	w := &watch{
		crashes: r.crashes, linger: r.twice, msgs: msgs, index: map[string]int{}, open: map[*pgx.Conn]*openTx{},
		broken: make([]int, len(msgs)), outside: map[string]*statement{},
	}
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // repeatable, not secret
	for i, m := range msgs {
		w.index[m.ID] = i
		w.point = append(w.point, 1+rng.IntN(3))
	}
	return w
}

// maxConns is enough for two inboxes and for handlers that take a second
// connection: that they use up a small pool is not what is looked for here.
const maxConns = 64

// pool returns a pool like p, watched.
func (w *watch) pool(ctx context.Context, p *pgxpool.Pool) (*pgxpool.Pool, error) {
	cfg := p.Config()
	cfg.MaxConns = max(cfg.MaxConns, maxConns)
	if own := cfg.ConnConfig.Tracer; own != nil {
		cfg.ConnConfig.Tracer = multitracer.New(own, w)
	} else {
		cfg.ConnConfig.Tracer = w
	}
	return pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
}

// TraceQueryStart implements pgx.QueryTracer.
func (w *watch) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	w.before(ctx, conn, data.SQL)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (w *watch) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer. A batch counts as one statement.
func (w *watch) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	sql := data.Batch.QueuedQueries[0].SQL
	for _, q := range data.Batch.QueuedQueries {
		if word(q.SQL) == "commit" {
			sql = q.SQL
		}
	}
	w.before(ctx, conn, sql)
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (w *watch) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (w *watch) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (w *watch) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	w.before(ctx, conn, "copy "+data.TableName.Sanitize())
	return ctx
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (w *watch) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}

// before is called before each statement, by the goroutine that has conn.
func (w *watch) before(ctx context.Context, conn *pgx.Conn, sql string) {
	msg, byHandler := w.messageOf(ctx)
	inTx := conn.PgConn().TxStatus() != 'I'
	w.mu.Lock()
	tx := w.open[conn]
	if tx == nil || !inTx {
		tx = &openTx{inboxs: !byHandler, statements: map[int]int{}}
		w.open[conn] = tx
	}
	if msg >= 0 {
		tx.statements[msg] += 0
	}
	breaks := false
	switch {
	case inTx:
		breaks = w.breaks(tx, msg, byHandler, word(sql))
	case word(sql) == "commit":
		w.ended++
	case byHandler:
		w.note(msg, sql)
	}
	w.mu.Unlock()
	if breaks {
		_ = conn.PgConn().Conn().Close() // as when the process dies: the server rolls back
	} else if inTx && w.linger && tx.inboxs && word(sql) == "commit" {
		overlap(ctx)
	}
}

// messageOf returns the index of the message that a statement is for, -1 if it
// is not known, and whether its handler runs it.
func (w *watch) messageOf(ctx context.Context) (msg int, byHandler bool) {
	id, _ := ctx.Value(deliveryKey{}).(string)
	if e, ok := event.Cause(ctx); ok {
		id, byHandler = e.ID, true
	}
	msg, known := w.index[id]
	if !known {
		return -1, false
	}
	return msg, byHandler
}

// breaks decides whether the connection is broken before this statement: for
// each message at one of its handler's statements, if it has so many, and then
// before the commit. w.mu is held.
func (w *watch) breaks(tx *openTx, msg int, byHandler bool, word string) (breaks bool) {
	switch {
	case !w.crashes || !tx.inboxs || word == "rollback":
	case word == "commit":
		for m := range tx.statements {
			if w.broken[m] < 2 {
				w.broken[m]++
				breaks = true
			}
		}
	case byHandler:
		tx.statements[msg]++
		if w.broken[msg] == 0 && tx.statements[msg] == w.point[msg] {
			w.broken[msg]++
			breaks = true
		}
	}
	return breaks
}

func (w *watch) note(msg int, sql string) {
	if w.outside[sql] == nil {
		w.outside[sql] = &statement{msg: msg}
	}
	w.outside[sql].times++
}

// overlap waits a moment with a transaction open, so that others meet it: what
// each has read is old when it writes.
func overlap(ctx context.Context) {
	timer := time.NewTimer(time.Duration(1+rand.IntN(4)) * time.Millisecond) //nolint:gosec // chance, as a scheduler has it
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// spared names the messages whose connection was never broken.
func (w *watch) spared() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, times := range w.broken {
		if times == 0 {
			names = append(names, w.name(i))
		}
	}
	return names
}

func (w *watch) name(msg int) string {
	m := &w.msgs[msg]
	return fmt.Sprintf("event %d (%s, key %q)", msg+1, m.Type, m.Key)
}

// report says what handlers did outside their transaction, "" if nothing.
func (w *watch) report() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	if w.ended > 0 {
		fmt.Fprintf(&b, "\n%d transactions were gone when the inbox came to commit them: a handler has ended its transaction itself (COMMIT or ROLLBACK). The inbox does that, together with its own record", w.ended)
	}
	if len(w.outside) > 0 {
		b.WriteString("\nhandlers ran these statements outside their transaction: what they change stays when it is rolled back, and happens again")
	}
	for _, sql := range slices.Sorted(maps.Keys(w.outside)) {
		s := w.outside[sql]
		fmt.Fprintf(&b, "\n  %d times, first for %s: %s", s.times, w.name(s.msg), strings.Join(strings.Fields(sql), " "))
	}
	return b.String()
}

// word is the first of a statement, in lower case.
func word(sql string) string {
	fields := strings.FieldsFunc(sql, func(r rune) bool { return r == ';' || r <= ' ' })
	if len(fields) == 0 {
		return ""
	}
	return strings.ToLower(fields[0])
}
