package relay

// Status. Every statement's work is bounded, however long the log is.
const (
	sqlStatusPipelines = `SELECT p.name, p.created_at, p.filter FROM {s}.pipeline p ORDER BY p.name`
	sqlStatusOwners    = `SELECT l.pipeline, l.owner, count(*)::int, coalesce(bool_or(` + sqlLive + `), false)
FROM {s}.lease l LEFT JOIN {s}.instance i ON i.name = l.owner GROUP BY l.pipeline, l.owner ORDER BY l.pipeline, l.owner`
	sqlStatusParked = `SELECT p.name, count(*) FILTER (WHERE state = 'retrying'), count(*) FILTER (WHERE state = 'blocked'),
  count(*) FILTER (WHERE state = 'dead'), count(DISTINCT (destination, key)) FILTER (WHERE blocks), count(*) < $1::bigint, extract(epoch FROM clock_timestamp() - min(parked_at))::float8
FROM {s}.pipeline p CROSS JOIN LATERAL (
  SELECT state, parked_at, destination, key, blocks FROM {s}.parked WHERE pipeline = p.name AND state <> 'discarded' LIMIT $1::bigint) e GROUP BY p.name`
	sqlStatusReports = `SELECT r.key, i.name, r.value FROM {s}.instance i, jsonb_each(i.report) r
WHERE ` + sqlLive + ` ORDER BY i.name`
	sqlStatusInstances = `SELECT name, started_at, extract(epoch FROM clock_timestamp() - started_at)::float8, extract(epoch FROM expires_at - clock_timestamp())::float8, ` + sqlLive + `
FROM {s}.instance i ORDER BY name`
	sqlStatusSlot = `SELECT {n}, pg_sequence_last_value('{s}.slot_seq') & 7 = {n}, coalesce(b.id - a.id + 1, 0), pg_total_relation_size('{s}.event_{n}'),
  coalesce(extract(epoch FROM clock_timestamp() - a.created_at), 0)::float8
FROM (SELECT) one LEFT JOIN LATERAL (SELECT id, created_at FROM {s}.event_{n} ORDER BY id LIMIT 1) a ON true
LEFT JOIN LATERAL (SELECT id FROM {s}.event_{n} ORDER BY id DESC LIMIT 1) b ON true`
	// For each distinct position the events that it has not passed: late ones, by
	// the few transactions that its snapshots did not see, and those above. Each
	// look is bounded by $1 rows, all positions of a pipeline sharing it.
	sqlStatusBacklog = `WITH latest AS MATERIALIZED (` + latest + `),
g AS MATERIALIZED (SELECT pipeline, n, array_agg(shard) shards, greatest($1::bigint / count(*) OVER (PARTITION BY pipeline), 100) most
  FROM latest GROUP BY pipeline, n),
f AS MATERIALIZED (SELECT name, filter->'topics' topics, filter->'types' types FROM {s}.pipeline)
SELECT g.pipeline, cardinality(g.shards), extract(epoch FROM clock_timestamp() - p.at)::float8, late.rows + fresh.rows,
  CASE WHEN fresh.seen = g.most THEN greatest(pg_sequence_last_value('{s}.event_id_seq') - fresh.last, 0) * fresh.wanted / fresh.seen * cardinality(g.shards) / $2::int ELSE 0 END,
  late.rows < g.most AND fresh.seen < g.most,
  coalesce(extract(epoch FROM clock_timestamp() - least(late.oldest, fresh.oldest)), 0)::float8
FROM g JOIN {s}.position p ON p.n = g.n JOIN f ON f.name = g.pipeline CROSS JOIN LATERAL (
  SELECT count(*) AS rows, min(created_at) AS oldest FROM (
    SELECT e.created_at FROM (
      SELECT pg_snapshot_xip(p.s) UNION SELECT pg_snapshot_xip(p.s2)
      UNION SELECT i::text::xid8 FROM generate_series(pg_snapshot_xmax(p.s)::text::bigint, p.b::text::bigint - 1) i
      UNION SELECT i::text::xid8 FROM generate_series(pg_snapshot_xmax(p.s2)::text::bigint, p.b2::text::bigint - 1) i) x(x)
    CROSS JOIN LATERAL (SELECT e.created_at FROM {s}.event e
      WHERE e.xid = x.x AND e.id <= greatest(p.h, p.c) AND {s}.shard(e.key, e.event_id) = ANY(g.shards)
        AND (f.topics IS NULL OR f.topics ? e.topic) AND (f.types IS NULL OR f.types ? e.type)
        AND NOT (e.id <= p.h AND pg_visible_in_snapshot(e.xid, p.s))
        AND (e.id <= p.c AND pg_visible_in_snapshot(e.xid, p.s2)) IS NOT TRUE
      ORDER BY e.id LIMIT g.most) e
    LIMIT g.most) e) late
CROSS JOIN LATERAL (
  SELECT count(*) AS seen, count(*) FILTER (WHERE wanted) AS wanted, count(*) FILTER (WHERE wanted AND mine) AS rows, max(id) AS last,
    min(created_at) FILTER (WHERE wanted AND mine) AS oldest FROM (
    SELECT e.id, e.created_at, {s}.shard(e.key, e.event_id) = ANY(g.shards) AS mine,
      (f.topics IS NULL OR f.topics ? e.topic) AND (f.types IS NULL OR f.types ? e.type) AS wanted FROM {s}.event e
    WHERE e.id > greatest(p.h, p.c) ORDER BY e.id LIMIT g.most) e) fresh`
)
