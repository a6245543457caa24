package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/outbox"
)

// lockShapes are the two statements that take locks: for one event and for many.
var lockShapes = map[string]func(key, note string) []event.Draft{
	"one": func(key, note string) []event.Draft {
		return []event.Draft{orderPlacedV1.New(orderPlaced{OrderID: key, Note: note})}
	},
	"many": func(key, note string) []event.Draft {
		return []event.Draft{orderPlacedV1.New(orderPlaced{OrderID: "of " + note}), orderPlacedV1.New(orderPlaced{OrderID: key, Note: note})}
	},
}

// Without the key's lock the second writer would draw its id while the first
// one still runs, and could commit before it.
func TestWithKeyLockMakesTheSecondWriterWait(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for _, tr := range d.transactors() {
		for holds, first := range lockShapes {
			for waits, second := range lockShapes {
				t.Run(tr.name+"/"+waits+"_waits_for_"+holds, func(t *testing.T) {
					_, err := d.admin.Exec(t.Context(), "TRUNCATE outbox.event")
					require.NoError(t, err)
					checkSecondWaits(t, d, tr, first, second)
				})
			}
		}
	}
}

func checkSecondWaits(t *testing.T, d database, tr transactor, first, second func(key, note string) []event.Draft) {
	ctx := t.Context()
	ob, err := tr.new(ctx, config())
	require.NoError(t, err)
	ob = ob.WithKeyLock()
	done := make(chan error, 1)
	require.NoError(t, tr.run(ctx, func(write writeFunc) error {
		if err := write(ctx, ob, first("k", "first")...); err != nil {
			return err
		}
		go func() {
			done <- tr.run(ctx, func(write writeFunc) error { return write(ctx, ob, second("k", "second")...) })
		}()
		d.awaitBlocked(t)
		return write(ctx, ob, first("k", "first again")...)
	}))
	require.NoError(t, <-done)
	var notes []string
	for _, e := range d.events(t) {
		if e.Key == "k" {
			notes = append(notes, string(e.Payload))
		}
	}
	require.Equal(t, []string{`{"orderId":"k","note":"first"}`, `{"orderId":"k","note":"first again"}`, `{"orderId":"k","note":"second"}`}, notes)
}

// awaitBlocked waits until one transaction of the database waits for a key, and
// returns its process.
func (d database) awaitBlocked(t *testing.T) (pid int32) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := d.admin.QueryRow(context.Background(), `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&pid)
		return err == nil
	}, 10*time.Second, 3*time.Millisecond, "a writer should wait for the key")
	return pid
}

// Two writers that lock the same keys in one order cannot deadlock. Each key in
// turn is held by somebody else: whoever waits for it must hold the keys before
// it and none behind it.
func TestWithKeyLockLocksInSortedOrder(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	keys := []string{"A", "B", "_", "a", "a1", "a10", "a2", "ab", "b", "ü"} // as bytes sort
	for _, tr := range d.transactors() {
		t.Run(tr.name, func(t *testing.T) {
			ctx := t.Context()
			ob, err := tr.new(ctx, config())
			require.NoError(t, err)
			ob = ob.WithKeyLock()
			for i, held := range keys {
				var drafts []event.Draft
				for _, k := range rand.Perm(len(keys)) {
					drafts = append(drafts, orderPlacedV1.New(orderPlaced{OrderID: keys[k]}))
				}
				done := make(chan error, 1)
				require.NoError(t, tr.run(ctx, func(write writeFunc) error {
					if err := write(ctx, ob, orderPlacedV1.New(orderPlaced{OrderID: held})); err != nil {
						return err
					}
					go func() {
						done <- tr.run(ctx, func(write writeFunc) error { return write(ctx, ob, drafts...) })
					}()
					require.Equal(t, append([]string{}, keys[:i]...), d.lockedBy(t, d.awaitBlocked(t), keys))
					return nil
				}))
				require.NoError(t, <-done)
			}
		})
	}
}

// lockedBy returns those of keys whose lock the process holds.
func (d database) lockedBy(t *testing.T, pid int32, keys []string) []string {
	t.Helper()
	rows, err := d.admin.Query(context.Background(), `SELECT key FROM unnest($2::text[]) WITH ORDINALITY k(key, n)
		WHERE EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND granted AND locktype = 'advisory' AND mode = 'ExclusiveLock'
			AND (classid::bigint << 32 | objid::bigint) = hashtextextended(key, 0)) ORDER BY n`, pid, keys)
	require.NoError(t, err)
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return held
}

func TestWithKeyLockCannotDeadlock(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	ob, err := outbox.New(ctx, d.writer, config())
	require.NoError(t, err)
	ob = ob.WithKeyLock()
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for range 50 {
				var drafts []event.Draft
				for _, k := range rand.Perm(10) {
					drafts = append(drafts, orderPlacedV1.New(orderPlaced{OrderID: fmt.Sprint(k)}))
				}
				if err := pgx.BeginFunc(ctx, d.writer, func(tx pgx.Tx) error { return ob.Write(ctx, tx, drafts...) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.Len(t, d.events(t), 8*50*10)
}
