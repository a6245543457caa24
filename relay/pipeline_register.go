package relay

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Registration.
const (
	// No slot is truncated while this is held, and a truncation asks for its lock
	// with NOWAIT: between the look at a position and the commit that stores it
	// nothing behind it can go away.
	sqlRegisterLock   = `LOCK TABLE {s}.event IN ACCESS SHARE MODE`
	sqlRegister       = `INSERT INTO {s}.pipeline (name, filter) VALUES ($1, $2::jsonb) ON CONFLICT DO NOTHING`
	sqlRegisterLeases = `INSERT INTO {s}.lease (pipeline, shard) SELECT $1, g FROM generate_series(0, $2::int - 1) g`
	sqlRegisterStart  = `INSERT INTO {s}.position (pipeline, shards, owner, s, h, b)
SELECT $1, array_agg(g::smallint), '', $3::text::pg_snapshot, $4::bigint, $5::text::xid8 FROM generate_series(0, $2::int - 1) g`
	// The whole position, a batch under way included.
	sqlRegisterCopy = `INSERT INTO {s}.position (pipeline, shards, owner, s, h, b, s2, h2, b2, c)
SELECT $1, l.shards, '', p.s, p.h, p.b, p.s2, p.h2, p.b2, p.c FROM (
  SELECT n, array_agg(shard) shards FROM (
    SELECT DISTINCT ON (q.shard) q.shard, p.n FROM {s}.position p, unnest(p.shards) q(shard)
    WHERE p.pipeline = $2 ORDER BY q.shard, p.n DESC) latest
  GROUP BY n) l JOIN {s}.position p USING (n)`
	sqlRegisterCopied = `SELECT coalesce(sum(cardinality(shards)), 0) FROM {s}.position WHERE pipeline = $1`
)

// register makes a pipeline known and gives it its first position, before its
// first probe: from here on nothing is truncated that it has not passed.
func (e *engine) register(ctx context.Context, t *tenure) error {
	return e.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if known, err := e.known(ctx, tx, e.r.q.filterShare); err != nil || known {
			return err
		}
		if _, err := tx.Exec(ctx, e.r.q.registerLock); err != nil {
			return err
		}
		// The probe comes before the first statement that writes: a transaction's own
		// xid would look visible to it, and age() is fixed by its first use.
		at := start
		if e.Start.Now {
			pr, err := takeProbe(ctx, tx, e.r.q.probe, t.token)
			if err != nil {
				return err
			}
			at = pr.position()
		}
		tag, err := tx.Exec(ctx, e.r.q.register, e.name, e.Filter.text())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 { // somebody was quicker: leases and positions came with it
			_, err := e.known(ctx, tx, e.r.q.filterShare)
			return err
		}
		if _, err := tx.Exec(ctx, e.r.q.registerLeases, e.name, shardCount); err != nil {
			return err
		}
		if e.Start.Pipeline != "" {
			return e.copyPosition(ctx, tx)
		}
		_, err = tx.Exec(ctx, e.r.q.registerStart, e.name, shardCount, at.s.text, at.h, fmt.Sprint(at.b))
		return err
	})
}

// copyPosition gives the pipeline the latest position of another one.
func (e *engine) copyPosition(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, e.r.q.registerCopy, e.name, e.Start.Pipeline); err != nil {
		return err
	}
	var shards int
	if err := tx.QueryRow(ctx, e.r.q.registerCopied, e.name).Scan(&shards); err != nil {
		return err
	}
	if shards != shardCount {
		return fmt.Errorf("start where pipeline %q stands: it has positions of %d of %d shards; is it registered, and its name right?", e.Start.Pipeline, shards, shardCount)
	}
	return nil
}
