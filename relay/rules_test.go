package relay

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// passes waits until the relay has moved past all that has been written so far:
// a marker event written now has come out, and after it nothing was left.
func passes(t *testing.T, db *database, p *recorder, r *Relay, marker string) {
	t.Helper()
	db.write(t, "marker", marker)
	eventually(t, func() bool {
		list := p.payloads()
		return len(list) > 0 && list[len(list)-1] == marker && r.caughtUp()
	}, "marker %s", marker)
}

func begin(t *testing.T, db *database) pgx.Tx {
	t.Helper()
	tx, err := db.writer.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

func txWrite(t *testing.T, tx pgx.Tx, key, payload string) {
	t.Helper()
	_, err := tx.Exec(t.Context(), insert, key, payload)
	require.NoError(t, err)
}

// Each case commits something after the relay has passed its ids.
func TestLateTransactions(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		commit func(t *testing.T, db *database, wait func())
		want   []string
	}{
		"running, in xip": {func(t *testing.T, db *database, wait func()) {
			tx := begin(t, db)
			txWrite(t, tx, "k", "late 1")
			txWrite(t, tx, "k", "late 2")
			wait()
			require.NoError(t, tx.Commit(t.Context()))
		}, []string{"late 1", "late 2"}},
		"savepoints": {func(t *testing.T, db *database, wait func()) {
			tx := begin(t, db)
			for i := range 4 {
				sp, err := tx.Begin(t.Context())
				require.NoError(t, err)
				txWrite(t, sp, "k", fmt.Sprint("sp ", i))
				if i%2 == 0 {
					require.NoError(t, sp.Rollback(t.Context()))
				} else {
					require.NoError(t, sp.Commit(t.Context()))
				}
			}
			wait()
			require.NoError(t, tx.Commit(t.Context()))
		}, []string{"sp 1", "sp 3"}},
		"prepared": {func(t *testing.T, db *database, wait func()) {
			gid := (&load{db: db}).gidPrefix()
			tx := begin(t, db)
			txWrite(t, tx, "k", "2pc")
			_, err := tx.Exec(t.Context(), `PREPARE TRANSACTION '`+gid+`'`)
			require.NoError(t, err)
			_ = tx.Commit(t.Context())
			wait()
			_, err = db.writer.Exec(t.Context(), `COMMIT PREPARED '`+gid+`'`)
			require.NoError(t, err)
		}, []string{"2pc"}},
		"rolled back": {func(t *testing.T, db *database, wait func()) {
			tx := begin(t, db)
			txWrite(t, tx, "k", "never")
			wait()
			require.NoError(t, tx.Rollback(t.Context()))
		}, []string{}},
		"older after newer": {func(t *testing.T, db *database, wait func()) {
			a, b := begin(t, db), begin(t, db)
			txWrite(t, a, "a", "a1")
			txWrite(t, b, "b", "b1")
			txWrite(t, a, "a", "a2")
			wait()
			require.NoError(t, b.Commit(t.Context()))
			wait()
			require.NoError(t, a.Commit(t.Context()))
		}, []string{"b1", "a1", "a2"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			p := &recorder{}
			r := newRelay(t, db.relay, config(p))
			running(t, r)
			n := 0
			wait := func() { n++; passes(t, db, p, r, fmt.Sprint("marker ", n)) }
			c.commit(t, db, wait)
			wait()
			got := []string{}
			for _, text := range p.payloads() {
				if !strings.HasPrefix(text, "marker") {
					got = append(got, text)
				}
			}
			require.Equal(t, c.want, got)
		})
	}
}

// The only transaction in the cluster that writes: its xid lies at xmax(S), and
// only B tells that it exists. On a private server, because xids are the cluster's.
func TestLateTransactionAboveXmax(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]bool{"found": false, "negative control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &session{engine: &engine{}}
			db := newDatabase(t)
			r := newRelay(t, db.relay, config(&recorder{}))
			if broken {
				r.q.probe = strings.Replace(r.q.probe, "THEN age(pg_snapshot_xmax(cur)::xid) END", "THEN 0 END", 1)
			}
			tok, err := r.incarnation(t.Context())
			require.NoError(t, err)
			s.r, s.t = r, &tenure{token: tok}
			// Other tests use up xids too: try until ours was above xmax.
			for {
				tx := begin(t, db)
				txWrite(t, tx, "k", "late")
				xid := scanTx[int64](t, tx, `SELECT pg_current_xact_id()::text::bigint`)
				before, err := s.probe(t.Context())
				require.NoError(t, err)
				require.NoError(t, tx.Commit(t.Context()))
				if before.s.xmax > uint64(xid) {
					continue
				}
				after, err := s.probe(t.Context())
				require.NoError(t, err)
				found := fmt.Sprint(before.position().pending(after.s))
				require.Equal(t, !broken, strings.Contains(found, fmt.Sprint(xid)))
				return
			}
		})
	}
}

func scanTx[T any](t *testing.T, tx pgx.Tx, sql string) T {
	t.Helper()
	var v T
	require.NoError(t, tx.QueryRow(t.Context(), sql).Scan(&v))
	return v
}

// A late row and a new one of the same key come out of one batch in the order of
// their ids, page by page.
func TestLateBeforeNew(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	p := &recorder{}
	r := newRelay(t, db.relay, config(p))
	stop := running(t, r)
	tx := begin(t, db)
	for i := range 5 {
		txWrite(t, tx, "k", fmt.Sprint("late ", i))
	}
	passes(t, db, p, r, "marker")
	require.NoError(t, stop())

	require.NoError(t, tx.Commit(t.Context()))
	for i := range 5 {
		db.write(t, "k", fmt.Sprint("new ", i))
	}
	p = &recorder{}
	r = newRelay(t, db.relay, config(p))
	r.tune.pageRows = 2
	stop = running(t, r)
	eventually(t, func() bool { return r.caughtUp() }, "caught up")
	require.NoError(t, stop())
	require.Equal(t, []string{"late 0", "late 1", "late 2", "late 3", "late 4", "new 0", "new 1", "new 2", "new 3", "new 4"}, p.payloads())
}

// A stop in the middle of a page, with the broker away, stores what was resolved.
func TestStopInTheMiddleOfAPage(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late=", late), func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			tx := begin(t, db)
			for i := range 9 {
				txWrite(t, tx, fmt.Sprint("key", i), fmt.Sprint(i))
			}
			if late {
				p := &recorder{}
				r := newRelay(t, db.relay, config(p))
				stop := running(t, r)
				passes(t, db, p, r, "marker")
				require.NoError(t, stop())
			}
			require.NoError(t, tx.Commit(t.Context()))
			want := []string{}
			for i := range 3 { // each life resolves three and no more
				p := &recorder{}
				p.answer = func(_ context.Context, call int, msgs []brokers.Message) []error {
					results := make([]error, len(msgs))
					for i := range msgs {
						if call > 0 || i >= 3 {
							results[i] = &brokers.Error{Class: brokers.ClassUnavailable, Err: context.DeadlineExceeded}
						}
					}
					return results
				}
				cfg := config(p)
				cfg.DrainTimeout = 10 * time.Millisecond
				r := newRelay(t, db.relay, cfg)
				r.tune.pageRows = 5
				stop := running(t, r)
				eventually(t, func() bool { return len(p.messages()) == 3 }, "three events")
				require.NoError(t, stop())
				require.Equal(t, []string{fmt.Sprint(3 * i), fmt.Sprint(3*i + 1), fmt.Sprint(3*i + 2)}, p.payloads())
				want = append(want, p.payloads()...)
			}
			require.Len(t, want, 9)
		})
	}
}

// Pages are bounded by bytes: a page ends with the row that reaches the bound.
func TestPagesAreBoundedByBytes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for i := range 10 {
		_, err := db.writer.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
VALUES ('t', $1, 'test', '/test', decode(repeat('00', 100000), 'hex'))`, fmt.Sprint(i))
		require.NoError(t, err)
	}
	largest := 0
	p := &recorder{answer: func(_ context.Context, _ int, msgs []brokers.Message) []error {
		largest = max(largest, len(msgs))
		return make([]error, len(msgs))
	}}
	r := newRelay(t, db.relay, config(p))
	r.tune.pageBytes = 250_000
	stop := running(t, r)
	eventually(t, func() bool { return len(p.messages()) == 10 && r.caughtUp() }, "all")
	require.NoError(t, stop())
	require.Equal(t, 3, largest)
	for i, m := range p.messages() {
		require.Equal(t, fmt.Sprint(i), m.Key)
	}
}
