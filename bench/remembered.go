package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/migrate"
)

// rememberedVsEmpty compares batches in a database that remembers 50 million v7
// ids, over the days of the window, with batches in one that remembers none.
func rememberedVsEmpty(ctx context.Context, e *env) error {
	c := newConsumption(e, pick(e, 300_000, 60_000))
	full, err := withOrders(ctx, e, migrate.Inbox(""))
	if err != nil {
		return err
	}
	defer full.drop()
	began := time.Now()
	if err := full.remember(ctx, pick(e, 50_000_000, 2_000_000)); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	note("filled in %s", time.Since(began).Round(time.Second))
	for round := range e.rounds + 1 {
		topic, _, err := c.produce(ctx, partitions, 1000)
		if err != nil {
			return err
		}
		if err := c.consume(ctx, "50m", full, consumerSpec{Topic: topic, Batch: batchSize, Bulk: true}); err != nil {
			return err
		}
		if err := c.inboxRun(ctx, "empty", consumerSpec{Topic: topic, Batch: batchSize, Bulk: true}); err != nil {
			return err
		}
		c.done(round)
	}
	e.out.add("inbox_50m_vs_empty", "ratio", ratios(c.rates["50m"], c.rates["empty"]))
	c.report("inbox_", "50m", "empty")
	return nil
}

// rememberedDays is the window, and today.
const rememberedDays = 8

// remember writes claims of n ids, as many for each day of the window: drawn at
// equal distances, today's until now. They come in order, as they would have.
func (d *database) remember(ctx context.Context, n int) error {
	if _, err := d.Exec(ctx, `INSERT INTO inbox.consumer (name, window_days, created_at) VALUES ($1, 7, now() - interval '1 year')`, consumerName); err != nil {
		return err
	}
	now := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for day := range rememberedDays {
		group.Go(func() error {
			from := now.Unix()/86400*86400 - int64(day)*86400
			until := min(from+86400, now.Unix())
			_, err := d.Exec(ctx, fmt.Sprintf(`INSERT INTO inbox.seen_%[1]d (slot, consumer, event_key)
SELECT %[1]d, 1, (lpad(to_hex(($1::bigint * 1000 + ($2::bigint - $1::bigint) * 1000 * g / $3::bigint)), 12, '0')
  || '7' || left(h, 3) || '8' || substr(h, 4, 15))::uuid
FROM (SELECT g, md5(g::text) h FROM generate_series(0, $3::bigint - 1) g) x`, from/86400%36), from, until, n/rememberedDays)
			if err == nil {
				_, err = d.Exec(ctx, fmt.Sprintf(`VACUUM (ANALYZE) inbox.seen_%d`, from/86400%36))
			}
			return err
		})
	}
	return group.Wait()
}
