package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// statsFlush is how long Postgres's sessions may keep statistics to themselves.
const statsFlush = 1500 * time.Millisecond

// rowChanges counts rows that were written to our tables, by what. Writes of
// events are not counted.
func (d *database) rowChanges(ctx context.Context) (written, dead float64, err error) {
	if err := pause(ctx, statsFlush); err != nil {
		return 0, 0, err
	}
	err = d.QueryRow(ctx, `SELECT coalesce(sum(n_tup_ins + n_tup_upd) FILTER (WHERE relname NOT LIKE 'event\_%'), 0)::float8,
  coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 FROM pg_stat_user_tables WHERE schemaname = 'outbox'`).Scan(&written, &dead)
	return written, dead, err
}

// bookkeeping counts the rows a second that the relay itself writes at 20,000
// events a second.
func bookkeeping(ctx context.Context, e *env) error {
	var writes, rates []float64
	for range e.rounds {
		err := withRelay(ctx, e, spec{}, func(s setting) error {
			if _, err := s.db.bulk(ctx, s.topic, 20_000, 2*time.Second); err != nil {
				return err
			}
			before, _, err := s.db.rowChanges(ctx)
			if err != nil {
				return err
			}
			began := time.Now()
			n, err := s.db.bulk(ctx, s.topic, 20_000, pick(e, 20*time.Second, 5*time.Second))
			if err != nil {
				return err
			}
			wrote := time.Since(began).Seconds()
			after, _, err := s.db.rowChanges(ctx)
			// Over the writing time alone, although what is counted took longer.
			writes, rates = append(writes, (after-before)/wrote), append(rates, float64(n)/wrote)
			return err
		})
		if err != nil {
			return err
		}
	}
	e.out.add("bookkeeping_writes_per_second", "rows/s", writes)
	e.out.add("bookkeeping_event_rate", "events/s", rates)
	return nil
}

// drainMemory is the most memory that the relay has resident during the drain of
// a long backlog to Kafka.
func drainMemory(ctx context.Context, e *env) error {
	events := pick(e, 1_000_000, 150_000)
	var mib []float64
	for range e.rounds {
		err := drained(ctx, e, events, spec{Kafka: e.kafka}, func(r *relayProcess, _ float64) { mib = append(mib, peakMiB(r.pid())) })
		if err != nil {
			return err
		}
	}
	e.out.add("drain_rss_mib", "MiB", mib)
	return nil
}

// drained fills a new database, lets a relay drain it, and calls f before it stops.
func drained(ctx context.Context, e *env, events int, s spec, f func(*relayProcess, float64)) error {
	db, err := newDatabase(ctx, e)
	if err != nil {
		return err
	}
	defer db.drop()
	topic, err := kafkaTarget(e).topic(ctx)
	if err != nil {
		return err
	}
	if err := db.fill(ctx, topic, thousandKeys, events); err != nil {
		return err
	}
	return db.drain(ctx, events, s, f)
}

// drain lets a relay publish n events and tells the seconds from its first event
// to the last.
func (d *database) drain(ctx context.Context, n int, s spec, f func(*relayProcess, float64)) error {
	s.Database = d.relayURL()
	r, err := startRelay(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = r.stop() }()
	first, err := r.published(1)
	if err != nil {
		return err
	}
	last, err := r.published(n)
	if err != nil {
		return err
	}
	f(r, last-first)
	return r.stop()
}

// backlogCost compares the time per event of draining a long backlog and a short
// one, into a publisher that takes no time: what reading costs.
func backlogCost(ctx context.Context, e *env) error {
	long, short := pick(e, 10_000_000, 1_000_000), 100_000
	perEvent := func(n int) ([]float64, error) {
		db, err := newDatabase(ctx, e)
		if err != nil {
			return nil, err
		}
		defer db.drop()
		if err := db.fill(ctx, "t", thousandKeys, n); err != nil {
			return nil, err
		}
		var runs []float64
		for range e.rounds {
			if err := db.drain(ctx, n, spec{}, func(_ *relayProcess, s float64) { runs = append(runs, s*1e6/float64(n)) }); err != nil {
				return nil, err
			}
			if err := db.forget(ctx); err != nil {
				return nil, err
			}
		}
		return runs, nil
	}
	// Not in alternation: a log of 10 million events takes minutes to write. The
	// short one is measured before and after it.
	before, err := perEvent(short)
	if err != nil {
		return err
	}
	far, err := perEvent(long)
	if err != nil {
		return err
	}
	after, err := perEvent(short)
	if err != nil {
		return err
	}
	near := make([]float64, len(before))
	for i := range near {
		near[i] = (before[i] + after[i]) / 2
	}
	e.out.add("backlog_cost_10m_vs_100k", "ratio", ratios(far, near))
	e.out.add("backlog_cost_10m", "us/event", far)
	e.out.add("backlog_cost_100k", "us/event", near)
	return nil
}

// heldSnapshot lets 500 events a second pass while a REPEATABLE READ transaction
// that has read the log stays open, and beside it, in another database of the
// same server, the same without one: what a transaction sees holds back its own
// database only. It compares the p99 latency, then the drain of a backlog while
// the transaction is still open, and counts the rows that die.
func heldSnapshot(ctx context.Context, e *env) error {
	var held, free holding
	for range e.rounds {
		err := withRelay(ctx, e, spec{Record: true}, func(f setting) error {
			return withRelay(ctx, e, spec{Record: true}, func(h setting) error {
				return holdOneOf(ctx, e, setHolding{h, &held}, setHolding{f, &free})
			})
		})
		if err != nil {
			return err
		}
	}
	e.out.add("held_snapshot_vs_free", "ratio", ratios(held.drain, free.drain))
	e.out.add("held_snapshot_p99_free_vs_held", "ratio", ratios(free.p99, held.p99))
	e.out.add("dead_tuples_per_minute", "rows/min", held.dead)
	return nil
}

// holding is what was measured, by round; of drain several a round.
type holding struct{ drain, p99, dead []float64 }

type setHolding struct {
	setting
	*holding
}

func holdOneOf(ctx context.Context, e *env, held, free setHolding) error {
	for _, s := range []setHolding{held, free} {
		if _, err := s.db.paced(ctx, s.topic, 100, time.Second); err != nil {
			return err
		}
	}
	tx, err := held.db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, `SELECT count(*) FROM outbox.event`); err != nil {
		return err
	}
	var both errgroup.Group
	for _, s := range []setHolding{held, free} {
		both.Go(func() error { return s.pass(ctx, pick(e, 10*time.Minute, 10*time.Second)) })
	}
	if err := both.Wait(); err != nil {
		return err
	}
	for range e.rounds {
		for _, s := range []setHolding{free, held} {
			if err := s.drainBacklog(ctx, pick(e, 300_000, 60_000)); err != nil {
				return err
			}
		}
	}
	return nil
}

// pass lets events pass for the window.
func (h setHolding) pass(ctx context.Context, window time.Duration) error {
	_, before, err := h.db.rowChanges(ctx)
	if err != nil {
		return err
	}
	committed, err := h.db.paced(ctx, h.topic, 500, window)
	if err != nil {
		return err
	}
	_, after, err := h.db.rowChanges(ctx)
	if err != nil {
		return err
	}
	ms, err := h.relay.delays(ctx, committed)
	if err != nil {
		return err
	}
	h.p99, h.dead = append(h.p99, quantile(ms, 0.99)), append(h.dead, (after-before)/window.Minutes())
	return nil
}

// drainBacklog measures the drain of events that appear at once.
func (h setHolding) drainBacklog(ctx context.Context, n int) error {
	a, err := h.relay.ask("0")
	if err != nil {
		return err
	}
	if err := h.db.backlog(ctx, h.topic, n); err != nil {
		return err
	}
	began := time.Now()
	if _, err := h.relay.published(int(a.Published) + n); err != nil { //nolint:gosec // small
		return err
	}
	h.drain = append(h.drain, float64(n)/time.Since(began).Seconds())
	return nil
}

// backlog writes n events in one transaction: they appear at once.
func (d *database) backlog(ctx context.Context, topic string, n int) error {
	_, err := d.Exec(ctx, `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT $1, 'k-' || g % 1000, 'com.example.OrderPlaced', '/shop/orders', convert_to(repeat('x', 300), 'UTF8') FROM generate_series(1, $2::int) g`, topic, n)
	return err
}

// scaleTwo compares two relays with one, to a broker that takes 50 ms to
// acknowledge at most 500 events.
func scaleTwo(ctx context.Context, e *env) error {
	var one, two []float64
	for range e.rounds {
		r1, err := scaled(ctx, e, 1)
		if err != nil {
			return err
		}
		r2, err := scaled(ctx, e, 2)
		if err != nil {
			return err
		}
		one, two = append(one, r1), append(two, r2)
	}
	e.out.add("scale_two_relays", "ratio", ratios(two, one))
	e.out.add("scale_one_relay_rate", "events/s", one)
	e.out.add("scale_two_relays_rate", "events/s", two)
	return nil
}

func scaled(ctx context.Context, e *env, relays int) (rate float64, err error) {
	s := spec{AckDelay: 50 * time.Millisecond, InFlight: 500}
	return rate, withRelay(ctx, e, s, func(first setting) error {
		s.Database = first.db.relayURL()
		all := []*relayProcess{first.relay}
		for range relays - 1 {
			r, err := startRelay(ctx, s)
			if err != nil {
				return err
			}
			defer func() { _ = r.stop() }()
			all = append(all, r)
		}
		if err := pause(ctx, 5*time.Second); err != nil { // shards are shared by then
			return err
		}
		events := pick(e, 200_000, 60_000)
		if err := first.db.backlog(ctx, first.topic, events); err != nil {
			return err
		}
		for began := time.Now(); ; {
			var published uint64
			for _, r := range all {
				a, err := r.ask("0")
				if err != nil {
					return err
				}
				published += a.Published
			}
			if published >= uint64(events) { //nolint:gosec // small
				rate = float64(events) / time.Since(began).Seconds()
				return nil
			}
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	})
}
