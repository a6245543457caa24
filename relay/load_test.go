package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// load is what the writers of the property tests do.
type load struct {
	t    testing.TB
	db   *database
	seed uint64
	// unsafe writers may fail at any moment (the server is being crashed).
	crashing bool
	errs     atomic.Int64
	prepared atomic.Int64
}

func (db *database) counters(t testing.TB) {
	db.exec(t, `CREATE TABLE counter (key text PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (fillfactor = 50);
INSERT INTO counter SELECT p || g FROM unnest(ARRAY['long', 'prep', 'copy', 'bulk', 'key']) p, generate_series(0, 19) g;
INSERT INTO counter SELECT 'key' || g FROM generate_series(20, 199) g;
GRANT SELECT, UPDATE ON counter TO outbox_writer`)
}

func (db *database) want(t testing.TB) map[string]int {
	rows, err := db.admin.Query(context.Background(), `SELECT key, n FROM counter`)
	require.NoError(t, err)
	want := map[string]int{}
	var key string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error { want[key] = n; return nil })
	require.NoError(t, err)
	return want
}

// run has 16 writers at work for d and returns when all transactions have ended.
func (l *load) run(d time.Duration) {
	stop := time.Now().Add(d)
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(l.seed, uint64(w)))
			for i := 0; time.Now().Before(stop); i++ {
				if err := l.transaction(r, w, i); err != nil {
					l.errs.Add(1)
					if !l.crashing {
						l.t.Errorf("writer %d: %v", w, err)
						return
					}
					pause(r, 20*time.Millisecond)
				}
			}
		})
	}
	writers.Wait()
}

// pause is think time, not a wait for a condition.
func pause(r *rand.Rand, longest time.Duration) {
	<-time.After(time.Duration(r.Int64N(int64(longest))))
}

func (l *load) transaction(r *rand.Rand, writer, i int) error {
	ctx := context.Background()
	tx, err := l.db.writer.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if r.IntN(3) == 0 { // an xid that writes no event for a while, if any
		if _, err := tx.Exec(ctx, `SELECT pg_current_xact_id()`); err != nil {
			return err
		}
		pause(r, 4*time.Millisecond)
	}
	switch {
	case writer == 0: // seconds long
		if err := bump(ctx, tx, "long", r.IntN(10), 2); err != nil {
			return err
		}
		pause(r, 2*time.Second)
		err = bump(ctx, tx, "long", 10+r.IntN(10), 1)
	case writer <= 2:
		return l.prepare(ctx, tx, r, fmt.Sprintf("%d_%d_%d", l.seed, writer, i))
	case writer == 3:
		err = copyIn(ctx, tx, r)
	case writer == 4 && r.IntN(100) == 0: // big
		err = bump(ctx, tx, "bulk", r.IntN(20), 3000)
		pause(r, 300*time.Millisecond)
	default:
		err = l.ordinary(ctx, tx, r)
	}
	if err != nil {
		return err
	}
	if r.IntN(10) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// bump raises a key's counter by n and writes n events, in one statement each.
func bump(ctx context.Context, tx pgx.Tx, kind string, key, n int) error {
	var last int
	name := kind + strconv.Itoa(key)
	if err := tx.QueryRow(ctx, `UPDATE counter SET n = n + $2 WHERE key = $1 RETURNING n`, name, n).Scan(&last); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT 't', $1, 'test', '/test', convert_to(g::text, 'UTF8') FROM generate_series($2::int, $3::int) g`, name, last-n+1, last)
	return err
}

// ordinary writes a few keys in ascending order, some in savepoints that may be
// rolled back.
func (l *load) ordinary(ctx context.Context, tx pgx.Tx, r *rand.Rand) error {
	keys := []int{r.IntN(200), r.IntN(200), r.IntN(200)}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, key := range keys[:1+r.IntN(len(keys))] {
		inner := tx
		if r.IntN(4) == 0 {
			var err error
			if inner, err = tx.Begin(ctx); err != nil {
				return err
			}
		}
		if err := bump(ctx, inner, "key", key, 1+r.IntN(2)); err != nil {
			return err
		}
		if inner != tx {
			end := inner.Commit
			if r.IntN(2) == 0 {
				end = inner.Rollback
			}
			if err := end(ctx); err != nil {
				return err
			}
		}
		if r.IntN(4) == 0 {
			pause(r, 4*time.Millisecond)
		}
	}
	return nil
}

func copyIn(ctx context.Context, tx pgx.Tx, r *rand.Rand) error {
	key, n := "copy"+strconv.Itoa(r.IntN(20)), 1+r.IntN(120)
	var last int
	if err := tx.QueryRow(ctx, `UPDATE counter SET n = n + $2 WHERE key = $1 RETURNING n`, key, n).Scan(&last); err != nil {
		return err
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"outbox", "event"}, []string{"topic", "key", "type", "source", "payload"},
		pgx.CopyFromSlice(n, func(i int) ([]any, error) {
			return []any{"t", key, "test", "/test", []byte(strconv.Itoa(last - n + 1 + i))}, nil
		}))
	pause(r, 30*time.Millisecond)
	return err
}

// prepare ends a transaction in two phases, with other work in between.
func (l *load) prepare(ctx context.Context, tx pgx.Tx, r *rand.Rand, gid string) error {
	gid = l.gidPrefix() + gid
	if err := bump(ctx, tx, "prep", r.IntN(20), 3); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `PREPARE TRANSACTION '`+gid+`'`); err != nil && !l.crashing {
		return err // in a crash the answer may have been lost: end it all the same
	}
	_ = tx.Commit(ctx) // ends what pgx thinks is open
	pause(r, 600*time.Millisecond)
	verb := "COMMIT"
	if r.IntN(5) == 0 {
		verb = "ROLLBACK"
	}
	for {
		_, err := l.db.writer.Exec(ctx, verb+` PREPARED '`+gid+`'`)
		if err == nil || strings.Contains(err.Error(), "does not exist") {
			l.prepared.Add(1)
			return nil
		}
		if !l.crashing {
			return err
		}
		pause(r, 50*time.Millisecond)
	}
}

func (l *load) gidPrefix() string { return l.db.url[strings.LastIndex(l.db.url, "/")+1:] }
