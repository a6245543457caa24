package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// paced writes rate events a second for d, each in a transaction of its own, and
// returns when each commit came back, in Unix nanoseconds by event id.
func (d *database) paced(ctx context.Context, topic string, rate int, dur time.Duration) (map[string]int64, error) {
	committed := map[string]int64{}
	err := d.pace(ctx, topic, rate, dur, func(id string, at int64, _ time.Duration) { committed[id] = at })
	return committed, err
}

// pace is paced with a function that is told of each event: its id, when its commit
// came back and how long its transaction took. It is called by one writer at a time.
func (d *database) pace(ctx context.Context, topic string, rate int, dur time.Duration, f func(string, int64, time.Duration)) error {
	const writers = 5
	ctx, cancel := context.WithTimeout(ctx, dur+time.Minute)
	defer cancel()
	var (
		mu   sync.Mutex
		errs []error
		wg   sync.WaitGroup
	)
	until := time.Now().Add(dur)
	for w := range writers {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * writers / time.Duration(rate))
			defer tick.Stop()
			for n := w; time.Now().Before(until) && ctx.Err() == nil; n += writers {
				began := time.Now()
				id, now, err := d.write(ctx, topic, n)
				took := time.Since(began)
				mu.Lock()
				if err == nil {
					f(id, now, took)
				} else {
					errs = append(errs, err)
				}
				mu.Unlock()
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// write is one event in a transaction of its own, and when its commit came back.
func (d *database) write(ctx context.Context, topic string, n int) (id string, committed int64, err error) {
	err = d.QueryRow(ctx, `INSERT INTO outbox.event (topic, key, type, source, headers, payload)
VALUES ($1, 'paced-' || $2::int % 1000, 'com.example.OrderPlaced', '/shop/orders',
  '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}', convert_to(repeat('x', 300), 'UTF8')) RETURNING event_id::text`, topic, n).Scan(&id)
	return id, time.Now().UnixNano(), err
}

// bulk writes rate events a second for dur, in transactions of 500, from several
// connections.
func (d *database) bulk(ctx context.Context, topic string, rate int, dur time.Duration) (int, error) {
	const each, writers = 500, 4
	var (
		wg      sync.WaitGroup
		written atomic.Int64
		errs    [writers]error
	)
	until := time.Now().Add(dur)
	for w := range writers {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * each * writers / time.Duration(rate))
			defer tick.Stop()
			for time.Now().Before(until) && ctx.Err() == nil {
				if errs[w] = d.backlog(ctx, topic, each); errs[w] != nil {
					return
				}
				written.Add(each)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	return int(written.Load()), errors.Join(errs[:]...)
}

// delays waits until the relay has acknowledged all of committed and returns the
// milliseconds from commit to acknowledgement.
func (p *relayProcess) delays(ctx context.Context, committed map[string]int64) ([]float64, error) {
	acked := map[string]int64{}
	for deadline := time.Now().Add(time.Minute); ; {
		a, err := p.ask("acks")
		if err != nil {
			return nil, err
		}
		for id, at := range a.Acks {
			acked[id] = at
		}
		missing := 0
		for id := range committed {
			if _, ok := acked[id]; !ok {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			return nil, errors.New("events were not acknowledged within a minute")
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	out := make([]float64, 0, len(committed))
	for id, at := range committed {
		// The relay may be faster than the writer's own answer.
		out = append(out, max(float64(acked[id]-at)/1e6, 0))
	}
	return out, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setting is a database with a relay that runs.
type setting struct {
	db    *database
	relay *relayProcess
	topic string
}

// withRelay runs f with a new database and a relay that publishes to Kafka.
func withRelay(ctx context.Context, e *env, s spec, f func(setting) error) error {
	db, err := newDatabase(ctx, e)
	if err != nil {
		return err
	}
	defer db.drop()
	topic, err := kafkaTarget(e).topic(ctx)
	if err != nil {
		return err
	}
	s.Database = db.relayURL()
	r, err := startRelay(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = r.stop() }()
	if err := f(setting{db: db, relay: r, topic: topic}); err != nil {
		return err
	}
	return r.stop()
}
