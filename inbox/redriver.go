package inbox

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	redrivePoll    = time.Second // how often an idle inbox looks for redriven dead letters
	redriveWorkers = 4           // their handlers at once, if Config.Concurrency is not less
	redrivePage    = 64          // keys looked up at once
	redriveFollow  = 100         // of one key, before other keys have a turn
)

// redriver handles the consumer's dead letters that were redriven, beside the
// messages of the broker. Several inboxes share the work: whoever locks a row
// handles it.
type redriver struct {
	*runner
	hard context.Context //nolint:containedctx // ends the handlers that still run after a drain
	q    redriveQueries
	poll time.Duration
	free chan int64 // rows for the workers

	mu       sync.Mutex
	busy     map[int64]bool // rows on their way to a worker or with one
	progress bool           // something was resolved since the last look
	lost     map[int64]int  // connections lost while a row's handler ran
	key      int64          // keys are looked at in turn, beginning after this one
	unkeyed  int64          // and rows without key after this one
}

// startRedriver begins to look for redriven dead letters. The function that it
// returns ends that: handlers that still run are cancelled.
func (r *runner) startRedriver() (stop func()) {
	hard, cancel := context.WithCancel(context.Background())
	d := &redriver{
		runner: r, hard: hard, q: newRedriveQueries(r.cfg.Schema), poll: r.redrivePoll, free: make(chan int64),
		busy: map[int64]bool{}, lost: map[int64]int{}, key: rand.Int64() - rand.Int64(),
	}
	var running sync.WaitGroup
	for range min(redriveWorkers, r.cfg.Concurrency) {
		lend(&running, func(h *hand) { (&redriveWorker{d, h}).work() })
	}
	running.Go(d.look)
	return func() {
		cancel()
		running.Wait()
	}
}

// look finds rows for the workers until Run ends.
func (d *redriver) look() {
	defer close(d.free)
	pauses := d.backoff(maxOutagePause)
	for d.ctx.Err() == nil {
		rows, more, err := d.due()
		if err != nil {
			if d.ctx.Err() == nil {
				d.gone(err)
				pause(pauses.NextBackOff(), d.ctx, d.ctx)
			}
			continue
		}
		d.back()
		pauses.Reset()
		given := d.give(rows)
		switch {
		case more && !given: // all of them wait for something else
			pause(d.poll/20, d.ctx, d.ctx)
		case !more && !d.progressed():
			pause(d.poll, d.ctx, d.ctx)
		}
	}
}

// give hands rows to the workers, and reports whether there was one.
func (d *redriver) give(rows []int64) (given bool) {
	for _, n := range rows {
		if !d.begin(n) {
			continue
		}
		select {
		case d.free <- n:
			given = true
		case <-d.ctx.Done():
			return given
		}
	}
	return given
}

// begin reports whether n is for this process to try, and was not with a worker.
func (d *redriver) begin(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[n] {
		return false
	}
	d.busy[n] = true
	return true
}

func (d *redriver) end(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.busy, n)
}

func (d *redriver) progressed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.progress
	d.progress = false
	return p
}

// due returns the rows whose turn it is: the first one of each of the next keys,
// and some without key; and whether there may be more. Types that have no handler
// here are left to an inbox that has one.
func (d *redriver) due() (due []int64, more bool, err error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.patience())
	defer cancel()
	var hash, n int64
	var typ string
	var now bool
	keys, rows := 0, 0
	take := func() error {
		if now && d.handles(typ) {
			due = append(due, n)
		}
		return nil
	}
	b := &pgx.Batch{}
	b.Queue(d.q.keyed, d.store.ConsumerID(), d.key, redrivePage).Query(func(r pgx.Rows) error {
		_, err := pgx.ForEachRow(r, []any{&hash, &n, &typ, &now}, func() error {
			keys, d.key = keys+1, hash
			return take()
		})
		return err
	})
	b.Queue(d.q.unkeyed, d.store.ConsumerID(), d.unkeyed, redrivePage).Query(func(r pgx.Rows) error {
		_, err := pgx.ForEachRow(r, []any{&n, &typ, &now}, func() error {
			rows, d.unkeyed = rows+1, n
			return take()
		})
		return err
	})
	if err := d.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, false, err
	}
	if more = keys == redrivePage || rows == redrivePage; !more {
		d.key, d.unkeyed = math.MinInt64, 0
	}
	// Other inboxes have found the same ones.
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	return due, more, nil
}

// handles reports whether a row of this type is tried here and now. One without type
// never has a handler: anybody may say so.
func (d *redriver) handles(typ string) bool {
	h, ok := d.handlers[typ]
	return ok && !h.open() || typ == ""
}

// redriveWorker is one of a redriver's.
type redriveWorker struct {
	*redriver
	*hand
}

func (d *redriveWorker) work() {
	for n := range d.free {
		d.follow(n)
	}
}

// follow handles a row, and then what has waited behind it.
func (d *redriveWorker) follow(n int64) {
	for range redriveFollow {
		next := d.settle(n)
		d.end(n)
		if next == 0 || d.ctx.Err() != nil || !d.begin(next) {
			return
		}
		n = next
	}
	d.end(n)
}

// settle brings a row one attempt on and returns the one whose turn it is then, 0
// if there is none. While the database is away it waits here.
func (d *redriveWorker) settle(n int64) (next int64) {
	pauses := d.backoff(maxOutagePause)
	for lost := 0; d.ctx.Err() == nil; {
		next, err := d.try(n)
		if err == nil {
			d.back()
			return next
		}
		if now := d.losses(n); now > lost { // it had answered before
			lost = now
			pauses.Reset()
		}
		if d.ctx.Err() == nil {
			d.gone(err)
			pause(pauses.NextBackOff(), d.ctx, d.ctx)
		}
	}
	return 0
}
