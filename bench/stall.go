package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// writerStall is the longest transaction of a writer while slots are advanced and
// truncated every second, under load, beside the same load without that.
func writerStall(ctx context.Context, e *env) error {
	var cutting, keeping stalls
	for range e.rounds {
		if err := keeping.run(ctx, e, 0); err != nil {
			return err
		}
		// The relay looks at the slots once a second then, which takes new events in
		// another one each time.
		if err := cutting.run(ctx, e, 2*time.Second); err != nil {
			return err
		}
	}
	e.out.add("writer_stall_truncation_ms", "ms", cutting.longest)
	e.out.add("writer_stall_no_truncation_ms", "ms", keeping.longest)
	e.out.add("writer_p99_truncation_ms", "ms", cutting.p99)
	e.out.add("writer_p99_no_truncation_ms", "ms", keeping.p99)
	e.out.add("writer_stall_truncations", "slots", cutting.slots)
	return nil
}

type stalls struct{ longest, p99, slots []float64 }

func (s *stalls) run(ctx context.Context, e *env, retain time.Duration) error {
	window := pick(e, 30*time.Second, 8*time.Second)
	return withRelay(ctx, e, spec{Retain: retain}, func(set setting) error {
		if _, err := set.db.bulk(ctx, set.topic, 5000, 2*time.Second); err != nil { // connections
			return err
		}
		before, err := set.db.truncated(ctx)
		if err != nil {
			return err
		}
		loaded := make(chan error, 1)
		go func() {
			_, err := set.db.bulk(ctx, set.topic, 5000, window)
			loaded <- err
		}()
		var ms []float64
		err = set.db.pace(ctx, set.topic, 500, window, func(_ string, _ int64, took time.Duration) { ms = append(ms, float64(took.Microseconds())/1e3) })
		if err := errors.Join(err, <-loaded); err != nil {
			return err
		}
		after, err := set.db.truncated(ctx)
		if err != nil {
			return err
		}
		if cut := after > before; cut != (retain > 0) {
			return fmt.Errorf("%v slots truncated with a retention of %s", after-before, retain)
		}
		s.longest, s.p99, s.slots = append(s.longest, slices.Max(ms)), append(s.p99, quantile(ms, 0.99)), append(s.slots, after-before)
		return nil
	})
}

// truncated is how many slots have been truncated: one is whenever writers come
// round to it again, and only onto an empty one do they go.
func (d *database) truncated(ctx context.Context) (n float64, err error) {
	err = d.QueryRow(ctx, `SELECT greatest(pg_sequence_last_value('outbox.slot_seq') - 8, 0)::float8`).Scan(&n)
	return n, err
}
