package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxkit/outboxkit/dedup"
)

// together brings messages of several lanes on, in one transaction. It makes one
// attempt and settles all or nothing: what is left in the lanes is taken again,
// alone where that is called for.
func (r *worker) together(h *batchHandler, taken []share) {
	b := r.fit(h, taken)
	defer func() {
		r.putAll(slices.DeleteFunc(taken, func(s share) bool {
			stubborn := b.stubborn != nil && len(s.tasks) > 0
			if stubborn {
				r.outlast(s.lane, b.stubborn)
			}
			return stubborn
		}))
	}()
	if len(b.tasks) == 0 {
		return
	}
	ctx, cancel := span(b.tasks)
	defer cancel(nil)
	if err := r.attempt(ctx, b); err != nil {
		if ctx.Err() == nil && r.ctx.Err() == nil {
			r.gone(err)
			pause(b.tasks[0].outage.NextBackOff(), ctx, r.ctx)
		}
		return
	}
	if !b.committed {
		return
	}
	for i := range taken {
		s := &taken[i]
		for s.settled < len(s.tasks) && r.settle(s.tasks[s.settled]) {
			s.settled++
		}
	}
}

// batch is messages on their way in one transaction.
type batch struct {
	*batchHandler
	tasks     []*task        // in the order in which they came
	events    any            // decoded, beside tasks; see batchHandler.room
	claims    []dedup.Result // beside tasks
	committed bool           // each task's fate has come true

	stubborn <-chan struct{} // closed when its handler, given up, has returned; nil if it has
}

// fate is what became of a message in a batch.
type fate int

const (
	handled  fate = iota
	repeated      // it was a duplicate
	shelved       // stored behind a dead letter
)

// fit decodes, and ends each share before the first message that cannot be in a
// batch: dead letters need steps of their own, and hold what follows.
//
// The messages come in the order in which they arrived, not lane by lane: rows
// whose keys grow with time then go to one place of an index.
func (r *runner) fit(h *batchHandler, taken []share) *batch {
	type candidate struct {
		*task
		share *share
	}
	size := 0
	for i := range taken {
		size += len(taken[i].tasks)
	}
	all := make([]candidate, 0, size)
	for i := range taken {
		s := &taken[i]
		for _, t := range s.tasks {
			all = append(all, candidate{t, s})
		}
		s.tasks = s.tasks[:0]
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.number, b.number) })
	b := &batch{batchHandler: h, tasks: make([]*task, 0, size), events: h.room(size)}
	for _, c := range all {
		s := c.share
		switch {
		case s.ended:
		case r.fits(b, c.task):
			b.tasks = append(b.tasks, c.task)
			s.tasks = s.tasks[:len(s.tasks)+1] // as it was
		default:
			c.alone, s.ended = true, true
		}
	}
	return b
}

func (r *runner) fits(b *batch, t *task) bool {
	if r.ctx.Err() != nil || t.ctx.Err() != nil || t.d.Message.ID == "" {
		return false
	}
	return guard(func() error { return b.decode(t.ctx, r.cfg.Wire, t.d, b.events) }) == nil
}

// span returns a context that ends as soon as one of the tasks' does.
func span(tasks []*task) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(tasks[0].ctx))
	stops := map[context.Context]func() bool{}
	for _, t := range tasks {
		if stops[t.ctx] == nil {
			stops[t.ctx] = context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })
		}
	}
	return ctx, func(err error) {
		for _, stop := range stops {
			stop()
		}
		cancel(err)
	}
}

// attempt makes one transaction of b. Its error is the database's, and counts
// against nobody. Without one, b.committed says whether anything came of it.
func (r *worker) attempt(ctx context.Context, b *batch) error {
	leave, err := r.crashes.join(ctx, 1)
	if err != nil {
		return err
	}
	defer leave()
	tx, blocked, err := r.beginBatch(ctx, b)
	if err != nil {
		return r.apart(b, err, outage(err))
	}
	defer tx.close()
	r.back()
	b.tasks[0].outage.Reset()

	var except []int
	spoilt := false
	for i, t := range b.tasks {
		t.fate = handled
		switch {
		case b.claims[i] == dedup.OutsideWindow:
			t.alone = true // to be buried; the others' claims are given up until then
			spoilt = true
		case b.claims[i] == dedup.Duplicate:
			t.fate = repeated
		case blocked[t.hash] && r.blocks(t):
			stored, err := r.shelve(t, tx)
			if err != nil {
				return r.apart(b, err, outage(err))
			}
			if stored {
				t.fate = shelved
			}
		}
		if t.fate != handled {
			except = append(except, i)
		}
	}
	if spoilt {
		return nil
	}
	if err := r.carryOut(ctx, b, tx, except); err != nil || b.tasks[0].alone {
		return err
	}
	b.committed = true
	return nil
}

// carryOut runs the handler for the events that are new, which those at the
// indexes of except are not, and commits.
func (r *worker) carryOut(ctx context.Context, b *batch, tx *transaction, except []int) error {
	handling, cancel := context.WithTimeoutCause(ctx, r.cfg.HandlerTimeout, errTimeout)
	defer cancel()
	var err error
	fresh := len(b.tasks) - len(except)
	if fresh > 0 {
		var stubborn <-chan struct{}
		if stubborn, err = r.supervise(handling, func() error { return b.run(handling, tx, b.events, except, 1) }); stubborn != nil {
			return r.abandonBatch(b, tx, stubborn)
		}
	}
	if err == nil {
		err = tx.misused()
	}
	if err == nil {
		if err = tx.commit(r.patience()); err == nil {
			b.breaker.batch(fresh)
			return nil
		}
		if commitLost(err) {
			return err // committed or not: the next claims tell
		}
		err = commitError(err)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // a delivery was taken away
	case errors.Is(context.Cause(handling), errTimeout):
		err = fmt.Errorf("%w after %s: %w", errTimeout, r.cfg.HandlerTimeout, err)
	}
	return r.apart(b, err, databaseFault(err))
}

// abandonBatch is abandon for a batch: all its keys wait until the handler returns.
func (r *runner) abandonBatch(b *batch, tx *transaction, returned <-chan struct{}) error {
	r.log.Error("inbox: a handler ignores its context: it has not returned since its time was up. The keys of its batch wait until it does, other keys go on; "+
		"a dump of goroutines (SIGQUIT, pprof) shows where it is", append(b.tasks[0].attrs(), "events", len(b.tasks), "timeout", r.cfg.HandlerTimeout)...)
	first := b.tasks[0]
	r.stubborn.add(first)
	tx.breakOff(returned)
	over := make(chan struct{})
	go func() { // ends with the handler, which nobody can make end
		<-returned
		r.stubborn.remove(first)
		close(over)
	}()
	b.stubborn = over
	return r.apart(b, fmt.Errorf("%w after %s, and has not returned", errTimeout, r.cfg.HandlerTimeout), false)
}

// apart has each of b's messages handled alone from now on, unless err is the
// database's and would meet every message.
func (r *runner) apart(b *batch, err error, database bool) error {
	if database {
		return err
	}
	r.log.Warn("inbox: a batch failed; its events are handled one by one", append(b.tasks[0].attrs(), "events", len(b.tasks), "error", err)...)
	for _, t := range b.tasks {
		t.alone = true
	}
	return nil
}

// outage reports errors of our own statements that a smaller transaction would
// meet just the same.
func outage(err error) bool {
	var pgErr *pgconn.PgError
	const noSharedMemory = "53200" // for so many locks
	return !errors.As(err, &pgErr) || pgErr.Code != noSharedMemory && outageCode(pgErr.Code)
}

// settle acknowledges what has been committed. It reports false if it could not.
func (r *runner) settle(t *task) bool {
	switch t.fate {
	case handled:
		r.stats.handled.Add(1)
	case shelved:
		r.blocked(t)
	case repeated:
		res, err := r.duplicate(t)
		return err == nil && res.what == settled
	}
	_, _ = r.ack(t, nil) // settled; nothing fails
	return true
}

// beginBatch begins a transaction, claims all of b in it, and looks which keys
// have dead letters, all in one round trip.
func (r *runner) beginBatch(ctx context.Context, b *batch) (*transaction, map[int64]bool, error) {
	keys := make([]dedup.Key, len(b.tasks))
	var hashes []int64
	for i, t := range b.tasks {
		keys[i] = t.key
		if r.blocks(t) {
			hashes = append(hashes, t.hash)
		}
	}
	slices.Sort(hashes)
	hashes = slices.Compact(hashes)
	b.claims = make([]dedup.Result, len(keys))
	args := []any{r.idle(), r.store.ConsumerID(), hashes}
	var found string
	tx, err := r.open(ctx, b.overSQL, &opening{
		queue: func(q *pgx.Batch) {
			q.Queue(r.sql.preludeBatch, args...).QueryRow(func(row pgx.Row) error { return row.Scan(nil, &found) })
			r.store.QueueAll(q, keys, b.claims)
		},
		run: func(ctx context.Context, x *transaction) (err error) {
			var timeout string
			if err = x.QueryRow(ctx, r.sql.preludeBatch, args...).Scan(&timeout, &found); err == nil {
				b.claims, err = r.store.ClaimSQL(ctx, x.sql, keys...)
			}
			return err
		},
	})
	if err != nil {
		return nil, nil, err
	}
	blocked := map[int64]bool{}
	for _, text := range strings.Fields(found) {
		hash, _ := strconv.ParseInt(text, 10, 64) // a bigint of Postgres's
		blocked[hash] = true
	}
	return tx, blocked, nil
}
