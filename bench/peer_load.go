package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// pace writes rate events a second for dur, numbered from first on, each in a
// transaction of its own, and returns when each commit came back. A key belongs
// to one writer, so its events are committed in the order of their numbers.
func (r *peerRun) pace(ctx context.Context, first, rate int, dur time.Duration) (map[int]int64, error) {
	const writers, keys = 16, 60
	var (
		mu        sync.Mutex
		committed = map[int]int64{}
		errs      []error
		wg        sync.WaitGroup
	)
	began := time.Now()
	gap := time.Second * writers / time.Duration(rate)
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				due := began.Add(gap*time.Duration(i) + gap*time.Duration(w)/writers)
				if due.Sub(began) >= dur || pause(ctx, time.Until(due)) != nil {
					return
				}
				seq := first + i*writers + w
				err := r.writeOne(ctx, seq, fmt.Sprintf("k-%d-%d", w, i%keys))
				now := time.Now().UnixNano()
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else {
					committed[seq] = now
				}
				mu.Unlock()
				if err != nil || time.Since(began) > 2*dur { // far behind: the rate says so
					return
				}
			}
		})
	}
	wg.Wait()
	return committed, errors.Join(append(errs, ctx.Err())...)
}

func (r *peerRun) writeOne(ctx context.Context, seq int, key string) error {
	e := peers.Event{ID: uuid.NewString(), Topic: r.place.Topic, Key: key, Payload: peerPayload(seq, key)}
	return pgx.BeginFunc(ctx, r.db.Pool, func(tx pgx.Tx) error { return r.Write(ctx, tx, e) })
}

// warm lets events pass for d, and returns when all have arrived.
func (r *peerRun) warm(ctx context.Context, a *arrivals, first, rate int, d time.Duration) error {
	committed, err := r.pace(ctx, first, rate, d)
	if err != nil {
		return err
	}
	if err := a.all(ctx, committed); err != nil {
		return fmt.Errorf("%w; %s", err, r.logTail())
	}
	return nil
}
