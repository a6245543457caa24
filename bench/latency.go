package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// latency is the time from a commit to the broker's acknowledgement at 500
// events a second.
func latency(ctx context.Context, e *env) error {
	var p50, p99 []float64
	for range e.rounds {
		err := withRelay(ctx, e, spec{Kafka: e.kafka, Record: true}, func(s setting) error {
			if _, err := s.db.paced(ctx, s.topic, 100, 2*time.Second); err != nil { // connections, metadata
				return err
			}
			committed, err := s.db.paced(ctx, s.topic, 500, pick(e, 20*time.Second, 4*time.Second))
			if err != nil {
				return err
			}
			ms, err := s.relay.delays(ctx, committed)
			p50, p99 = append(p50, quantile(ms, 0.5)), append(p99, quantile(ms, 0.99))
			return err
		})
		if err != nil {
			return err
		}
	}
	e.out.add("latency_p50_ms", "ms", p50)
	e.out.add("latency_p99_ms", "ms", p99)
	return nil
}

// idle writes an event every few seconds: how long each takes, and the CPU that
// the relay and its database sessions use meanwhile.
func idle(ctx context.Context, e *env) error {
	gap, events := pick(e, 5*time.Second, time.Second), pick(e, 12, 5)
	var p99, share []float64
	for range e.rounds {
		err := withRelay(ctx, e, spec{Kafka: e.kafka, Record: true}, func(s setting) error {
			if _, err := s.db.paced(ctx, s.topic, 100, 2*time.Second); err != nil {
				return err
			}
			if err := pause(ctx, 2*time.Second); err != nil {
				return err
			}
			pids, err := s.sessions(ctx)
			if err != nil {
				return err
			}
			committed := map[string]int64{}
			before, began := cpuOf(pids), time.Now()
			for range events {
				id, at, err := s.db.write(ctx, s.topic, 0)
				if err != nil {
					return err
				}
				committed[id] = at
				if err := pause(ctx, gap); err != nil {
					return err
				}
			}
			share = append(share, (cpuOf(pids)-before)/time.Since(began).Seconds())
			ms, err := s.relay.delays(ctx, committed)
			p99 = append(p99, quantile(ms, 0.99))
			return err
		})
		if err != nil {
			return err
		}
	}
	e.out.add("idle_latency_p99_ms", "ms", p99)
	e.out.add("idle_core_share", "cores", share)
	return nil
}

// sessions lists the processes of the relay: itself and its database sessions.
func (s setting) sessions(ctx context.Context) ([]int, error) {
	rows, err := s.db.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()`, relayApplication)
	if err != nil {
		return nil, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	return append(pids, s.relay.pid()), err
}

func cpuOf(pids []int) (seconds float64) {
	for _, pid := range pids {
		seconds += cpuSeconds(pid)
	}
	return seconds
}

// openWriter compares the p99 latency of other events, under bulk writes, while
// one transaction that has written an event stays open, with the same without.
func openWriter(ctx context.Context, e *env) error {
	window := pick(e, time.Minute, 8*time.Second)
	var open, free []float64
	for range e.rounds {
		for _, held := range []bool{false, true} {
			p99, err := besideBulk(ctx, e, window, held)
			if err != nil {
				return err
			}
			if held {
				open = append(open, p99)
			} else {
				free = append(free, p99)
			}
		}
	}
	e.out.add("open_writer_p99_ratio", "ratio", ratios(open, free))
	e.out.add("open_writer_p99_ms", "ms", open)
	e.out.add("open_writer_free_p99_ms", "ms", free)
	return nil
}

func besideBulk(ctx context.Context, e *env, window time.Duration, held bool) (p99 float64, err error) {
	const perSecond = 1_000_000 / 60
	return p99, withRelay(ctx, e, spec{Record: true}, func(s setting) error {
		if _, err := s.db.paced(ctx, s.topic, 100, time.Second); err != nil {
			return err
		}
		if held {
			tx, err := s.db.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(ctx) }()
			if _, err := tx.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source) VALUES ($1, 'open', 't', 's')`, s.topic); err != nil {
				return err
			}
		}
		bulk := make(chan error, 1)
		go func() {
			_, err := s.db.bulk(ctx, s.topic, perSecond, window)
			bulk <- err
		}()
		committed, err := s.db.paced(ctx, s.topic, 200, window)
		if err = errors.Join(err, <-bulk); err != nil {
			return err
		}
		ms, err := s.relay.delays(ctx, committed)
		p99 = quantile(ms, 0.99)
		return err
	})
}
