package inbox_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/inbox"
)

// diedWith makes the database look as if a run had died as often while the
// handler of an event ran.
func (w *world) diedWith(eventKey string, times int) {
	w.t.Helper()
	w.exec(`INSERT INTO inbox.run (consumer) SELECT id FROM inbox.consumer WHERE name = 'inventory'`)
	if eventKey != "" {
		w.exec(`INSERT INTO inbox.begun (consumer, event_key, attempts) SELECT id, $1, $2 FROM inbox.consumer WHERE name = 'inventory'`, eventKey, times)
	}
}

// marked runs an inbox until it has begun to handle the only message, and returns
// what it is marked by. Then it ends in order.
func (w *world) marked() (key string) {
	w.t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	in := w.start(w.config("inventory"), func(ctx context.Context, _ pgx.Tx, _ inbox.Event[order]) error {
		close(entered)
		<-leave
		return ctx.Err()
	})
	<-entered
	require.NoError(w.t, w.pool.QueryRow(w.t.Context(), `SELECT event_key::text FROM inbox.begun WHERE attempts = 1`).Scan(&key))
	w.broker.Stop() // takes the delivery away
	close(leave)
	require.NoError(w.t, in.end())
	require.Zero(w.t, w.begun(), "an end in order")
	require.Positive(w.t, w.count(`SELECT count(*) FROM inbox.run`), "the one that died")
	w.broker.Start()
	return key
}

func (w *world) begun() int { return w.count(`SELECT count(*) FROM inbox.begun`) }

// A message of which a process may have died is marked before its handler begins,
// until it comes to any end. After a crash it is tried alone; when it has crashed
// as often as it has attempts it is a dead letter, untried.
func TestMessageThatKillsTheProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.established("inventory")
	w.diedWith("", 0)
	w.publish(message("killer", 0))
	key := w.marked()

	w.diedWith(key, 2)
	for n := range 50 {
		w.publish(message(fmt.Sprint("k", n), n))
	}
	var running, beside atomic.Int64
	alone := make(chan struct{})
	in := w.start(w.config("inventory"), func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		defer running.Add(-1)
		others := running.Add(1) - 1
		if e.Key != "killer" {
			return insert("inventory")(ctx, tx, e)
		}
		beside.Add(others)
		timer := time.NewTimer(100 * time.Millisecond) // time for others to begin
		defer timer.Stop()
		<-timer.C
		beside.Add(running.Load() - 1)
		close(alone)
		return insert("inventory")(ctx, tx, e)
	})
	<-alone
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Zero(t, beside.Load())
	require.Equal(t, 51, w.effects())
	require.Zero(t, w.begun())

	again := message("killer", 1)
	w.publish(again)
	w.diedWith(w.marked(), 3)
	in = w.start(w.config("inventory"), insert("inventory"))
	w.settled("inventory")
	require.NoError(t, in.end())
	rows := w.dead()
	require.Len(t, rows, 1)
	require.Equal(t, again.ID, rows[0].ID)
	require.Equal(t, "crashed", rows[0].Reason)
	require.Equal(t, 3, rows[0].Attempts)
	require.Zero(t, in.Stats().Failures)
	require.Zero(t, w.effects(again.ID))
}

// A healthy message costs nothing where the runs before have ended in order.
func TestNoMarksWithoutACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'marked'; END $$`)
	w.exec(`CREATE TRIGGER refuse BEFORE INSERT ON inbox.begun FOR EACH ROW EXECUTE FUNCTION refuse()`)
	for range 3 {
		require.Equal(t, inbox.Stats{Handled: 2}, deliver(w, message("a", 1), message("b", 2)))
		require.Zero(t, w.count(`SELECT count(*) FROM inbox.run`))
	}
}
