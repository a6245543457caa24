package relay

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Rebase makes a log that was dumped and restored, or replicated logically, belong
// to the cluster and database that pool is connected to. Afterwards every pipeline
// goes on with the events that it had not published when the copy was made; an
// event that one of several pipelines had not published is published again by
// all. It rewrites the log's rows under an exclusive lock, so writers wait. Stop
// all relays first. The role must own the schema's tables, or be a superuser.
//
// An empty schema means "outbox".
func Rebase(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	cfg := Config{Schema: schema}.withDefaults()
	if !schemaName.MatchString(cfg.Schema) {
		return fmt.Errorf("rebase: schema %q is not a schema name", cfg.Schema)
	}
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		for _, statement := range rebase {
			if _, err := tx.Exec(ctx, strings.ReplaceAll(statement, "{s}", cfg.Schema)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("rebase %s: %w", cfg.Schema, err)
	}
	return nil
}

// rebase is one transaction with the xid X. Rows passed by every pipeline get an
// xid below every snapshot, all others X. The new position says that everything
// below X is passed and X is not, although it is below the highest id: X is
// pending, and its rows are read as late rows, in id order. The position is
// written out because a transaction's own snapshot takes itself for ended.
var rebase = []string{
	// Waits for writers: afterwards no row is uncommitted, and ids drawn by
	// transactions that are running now are above the position's.
	`LOCK TABLE {s}.event, {s}.pipeline, {s}.instance, {s}.lease, {s}.position, {s}.incarnation, {s}.meta IN ACCESS EXCLUSIVE MODE`,
	// A row is passed only if it is so at the position of each shard: a cluster with
	// another hash has other shards, so which one the row was in is not known.
	`WITH latest AS MATERIALIZED (
  SELECT DISTINCT ON (p.pipeline, q.shard) p.* FROM {s}.position p, unnest(p.shards) q(shard)
  ORDER BY p.pipeline, q.shard, p.n DESC),
at AS MATERIALIZED (SELECT DISTINCT s::text, h, s2::text, h2, c FROM latest)
UPDATE {s}.event e SET xid = CASE WHEN
    EXISTS (SELECT FROM latest) AND (SELECT count(*) FROM latest) = 64 * (SELECT count(*) FROM {s}.pipeline)
    AND NOT EXISTS (SELECT FROM at WHERE (e.id <= at.h AND pg_visible_in_snapshot(e.xid, at.s::pg_snapshot)
      OR e.id <= at.h2 AND e.id <= at.c AND pg_visible_in_snapshot(e.xid, at.s2::pg_snapshot)) IS NOT TRUE)
  THEN '3'::xid8 ELSE pg_current_xact_id() END`,
	`SELECT setval('{s}.event_id_seq', greatest(1, pg_sequence_last_value('{s}.event_id_seq'), (SELECT max(id) FROM {s}.event)))`,
	`SELECT setval('{s}.slot_seq', greatest(1, pg_sequence_last_value('{s}.slot_seq')))`,
	`DELETE FROM {s}.position`,
	`INSERT INTO {s}.position (pipeline, shards, owner, s, h, b)
SELECT name, (SELECT array_agg(g::smallint) FROM generate_series(0, 63) g), 'rebase',
  format('%1$s:%1$s:', x)::pg_snapshot, pg_sequence_last_value('{s}.event_id_seq'), (x::bigint + 1)::text::xid8
FROM {s}.pipeline, (SELECT pg_current_xact_id()::text AS x) c`,
	// Whoever still runs is not an owner any more, and forgets what it knows.
	`DELETE FROM {s}.instance`,
	`UPDATE {s}.lease SET owner = '', epoch = epoch + 1`,
	`TRUNCATE {s}.incarnation`,
	// Postgres computes a generated column anew only if one that it rests on is set.
	`UPDATE {s}.parked SET key = key`,
	`UPDATE {s}.replay SET state = 'done', error = 'ended by relay rebase' WHERE state IN ('running', 'stopped')`,
	`UPDATE {s}.meta SET system_identifier = c.system_identifier, database_oid = d.oid
FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()`,
}
