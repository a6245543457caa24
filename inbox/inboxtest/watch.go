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
	crashes bool   // break each event's connection twice
	linger  bool   // let transactions overlap
	schema  string // the inbox's
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
	inboxs     bool         // the inbox's, not one that a handler has begun
	msgs       map[int]bool // that are handled in it, as far as is known: of a batch, the first
	statements int          // of handlers, and the commit
	over       bool
}

// statement is one that a handler ran outside.
type statement struct {
	times int
	msg   int // of the first time
}

func newWatch(r run, seed uint64, schema string, msgs []brokers.Message) *watch {
	w := &watch{
		crashes: r.crashes, linger: r.twice, schema: schema, msgs: msgs, index: map[string]int{}, open: map[*pgx.Conn]*openTx{},
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
	var texts []string
	for _, q := range data.Batch.QueuedQueries {
		texts = append(texts, q.SQL)
	}
	w.before(ctx, conn, strings.Join(texts, "; "))
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
	msg, own := w.messageOf(ctx), w.isInboxs(sql)
	inTx := conn.PgConn().TxStatus() != 'I'
	w.mu.Lock()
	tx := w.open[conn]
	if tx == nil || !inTx {
		tx = &openTx{msgs: map[int]bool{}}
		w.open[conn] = tx
	}
	tx.inboxs = tx.inboxs || own
	if msg >= 0 {
		tx.msgs[msg] = true
	}
	verb, breaks, lingers := word(sql), false, false
	switch {
	case own, verb == "begin":
	case verb == "rollback":
		tx.over = true
	case tx.inboxs && inTx:
		tx.statements++
		breaks = w.crashes && w.breaks(tx, verb)
		lingers = w.linger && verb == "commit" && !breaks
	case verb == "commit" && !inTx:
		w.ended++
	case verb != "commit" && msg >= 0:
		w.note(msg, sql)
	}
	tx.over = tx.over || breaks
	w.mu.Unlock()
	if lingers {
		w.overlap(ctx, tx)
	}
	if breaks {
		_ = conn.PgConn().Conn().Close() // as when the process dies: the server rolls back
	}
}

// messageOf returns the index of the message that a statement is for, -1 if that
// is not known.
func (w *watch) messageOf(ctx context.Context) int {
	id, _ := ctx.Value(deliveryKey{}).(string)
	if e, ok := event.Cause(ctx); ok {
		id = e.ID
	}
	if msg, known := w.index[id]; known {
		return msg
	}
	return -1
}

// isInboxs reports statements of the inbox itself: they name its schema, or are
// those few that name no table.
func (w *watch) isInboxs(sql string) bool {
	return strings.Contains(sql, w.schema+".") || strings.Contains(sql, "set_config('idle_in_transaction_session_timeout'") ||
		strings.HasPrefix(sql, "SELECT pg_advisory_xact_lock($1)")
}

// breaks decides whether the connection is broken before this statement of an
// inbox's transaction: for each message at one of its handler's statements, if it
// has so many, and then before the commit. w.mu is held.
func (w *watch) breaks(tx *openTx, verb string) (breaks bool) {
	for m := range tx.msgs {
		if verb == "commit" && w.broken[m] < 2 || w.broken[m] == 0 && tx.statements == w.point[m] {
			w.broken[m]++
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

// maxOverlap bounds how long a transaction that is about to commit waits for
// another one.
const maxOverlap = 50 * time.Millisecond

// overlap waits until another transaction is under way, past its first
// statement: what that has read is old when it writes.
func (w *watch) overlap(ctx context.Context, tx *openTx) {
	ctx, cancel := context.WithTimeout(ctx, maxOverlap)
	defer cancel()
	poll := time.NewTicker(200 * time.Microsecond)
	defer poll.Stop()
	for !w.met(tx) && ctx.Err() == nil {
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	w.mu.Lock()
	tx.over = true
	w.mu.Unlock()
}

func (w *watch) met(tx *openTx) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.open {
		if other != tx && other.inboxs && !other.over && other.statements >= 2 {
			return true
		}
	}
	return false
}

// broke reports whether any connection was broken.
func (w *watch) broke() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Max(w.broken) > 0
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
