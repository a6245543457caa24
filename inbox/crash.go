package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"

	"github.com/outboxkit/outboxkit/brokers"
)

// crashes notices messages whose handler kills the process, by using up its
// memory for example: nobody is left to count such an attempt. Where an earlier
// run has not ended in order, or is running still, the first messages of each
// unit are doubtful: before the handler of one begins, a row says so, which goes
// when it has come to any end. Who finds such a row tries the message alone, so
// that the next crash is its own and nobody else's; and with Config.Attempts, or two, of
// them it is a dead letter, untried. No other message costs anything.
type crashes struct {
	n       int64 // of this run's row; 0 = none
	careful bool
	all     *semaphore.Weighted // running handlers, where careful; one that is alone has it all
	perUnit int                 // doubtful messages

	mu   sync.Mutex
	left map[unitKey]int // doubtful messages to come
}

type unitKey struct {
	broker, topic string
	partition     int32
}

const allOfThem = 1 << 30 // more handlers than there are

// crashQueries are for one schema.
type crashQueries struct{ enlist, leave, look, begin, end string }

func newCrashQueries(schema string) crashQueries {
	return crashQueries{
		enlist: `WITH tidy AS (DELETE FROM ` + schema + `.begun WHERE at < now() - interval '1 day'),
  old AS (DELETE FROM ` + schema + `.run WHERE started_at < now() - interval '1 hour')
INSERT INTO ` + schema + `.run (consumer) VALUES ($1)
RETURNING n, EXISTS (SELECT FROM ` + schema + `.run r WHERE r.consumer = $1 AND r.started_at >= now() - interval '1 hour')`,
		leave: `DELETE FROM ` + schema + `.run WHERE n = $1`,
		look:  `SELECT attempts FROM ` + schema + `.begun WHERE consumer = $1 AND event_key = $2`,
		begin: `INSERT INTO ` + schema + `.begun AS b (consumer, event_key) VALUES ($1, $2)
ON CONFLICT (consumer, event_key) DO UPDATE SET attempts = b.attempts + 1, at = now()`,
		end: `DELETE FROM ` + schema + `.begun WHERE consumer = $1 AND event_key = $2`,
	}
}

// enlist says that this run has begun, and finds out whether to be careful.
func (r *runner) enlist() error {
	c := &r.crashes
	c.all, c.perUnit, c.left = semaphore.NewWeighted(allOfThem), r.room.maxCount, map[unitKey]int{}
	err := r.pool.QueryRow(r.ctx, r.crashSQL.enlist, r.store.ConsumerID()).Scan(&c.n, &c.careful)
	if err != nil {
		return fmt.Errorf("register a run in schema %s (migrated and granted? see relay migrate): %w", r.cfg.Schema, err)
	}
	return nil
}

// minCrashes of a message make it a dead letter at the earliest: the first may be
// another's, or an outage of the database, in which the end of an attempt cannot
// be stored.
const minCrashes = 2

// leaveGrace is short: the drain is over.
const leaveGrace = time.Second

// leave says that this run has ended in order.
func (r *runner) leave() {
	err := withGrace(leaveGrace, func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, r.crashSQL.leave, r.crashes.n)
		return err
	})
	if err != nil {
		r.log.Debug("inbox: the end of this run is not on record", "error", err)
	}
}

// doubt reports whether a delivery is doubtful.
func (c *crashes) doubt(o *brokers.Origin) bool {
	if !c.careful {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u := unitKey{o.Broker, o.Topic, o.Partition}
	left, known := c.left[u]
	if !known {
		left = c.perUnit
	}
	c.left[u] = max(left-1, 0)
	return left > 0
}

// repeated takes a doubt back: the message was a duplicate, the ones that were
// under way come later.
func (c *crashes) repeated(t *task) {
	if !t.doubtful {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[unitKey{t.d.Origin.Broker, t.d.Origin.Topic, t.d.Origin.Partition}]++
}

// join waits while a message that must be alone is tried; with allOfThem, until
// nothing else is.
func (c *crashes) join(ctx context.Context, weight int64) (leave func(), err error) {
	if !c.careful {
		return func() {}, nil
	}
	if err := c.all.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { c.all.Release(weight) }, nil
}

// tryJoin is join for a message of weight 1, if it need not wait; leave ends it.
func (c *crashes) tryJoin() bool { return !c.careful || c.all.TryAcquire(1) }

func (c *crashes) leave() {
	if c.careful {
		c.all.Release(1)
	}
}

// venture is called before a handler runs, and end when it has come to an end. If
// the handler has begun too often without one, it must not: crashed says how
// often, and end is nil.
func (r *runner) venture(ctx context.Context, key uuid.UUID, doubtful bool) (end func(), crashed int, err error) {
	weight := int64(1)
	if doubtful {
		err := r.pool.QueryRow(ctx, r.crashSQL.look, r.store.ConsumerID(), key).Scan(&crashed)
		switch {
		case err != nil && !errors.Is(err, pgx.ErrNoRows):
			return nil, 0, fmt.Errorf("look for earlier attempts: %w", err)
		case crashed >= max(r.cfg.Attempts, minCrashes):
			return nil, crashed, nil
		case crashed > 0:
			weight = allOfThem
			r.log.Warn("inbox: an attempt at this event began and never ended: the process has died, or was killed; it is tried alone now",
				"event_key", key, "attempts", crashed)
		}
	}
	release, err := r.crashes.join(ctx, weight)
	if err != nil {
		return nil, 0, err
	}
	if !doubtful {
		return release, 0, nil
	}
	if _, err := r.pool.Exec(ctx, r.crashSQL.begin, r.store.ConsumerID(), key); err != nil {
		release()
		return nil, 0, fmt.Errorf("say that an attempt begins: %w", err)
	}
	return func() {
		defer release()
		_ = withGrace(frozenGrace, func(ctx context.Context) error {
			_, err := r.pool.Exec(ctx, r.crashSQL.end, r.store.ConsumerID(), key)
			return err // then it looks like one crash
		})
	}, 0, nil
}

// errCrashed is why a message dies that nobody has tried.
func errCrashed(times int) error {
	return fmt.Errorf("its handler began %d times and never came to an end: the process died each time. Look for memory that runs out, or a fatal error, in the process's last words", times)
}
