package relay

import (
	"strings"

	"github.com/outboxkit/outboxkit/internal/planted"
)

// queries holds every statement, with the schema's name filled in. All are
// single statements in autocommit unless said otherwise; none relies on a
// session, so that a transaction-mode pooler may move them between connections.
type queries struct {
	parkingQueries
	probe                                           string
	late, fresh, next                               string
	flush, prune                                    string
	load                                            string
	schemas                                         string
	token, newToken                                 string
	identity, ahead                                 string
	version, grants                                 string
	join, beat, retire, leave                       string
	withdraw, comeBack                              string
	filter, filterShare                             string
	registerLock, register                          string
	registerLeases, registerStart                   string
	registerCopy, registerCopied                    string
	look, expire, lockFree, take, release           string
	slotState, slotLock, slotCheck, slotCut, slotUp string
}

// columns are what a page needs of an event; size bounds pages by bytes without
// reading payloads that are stored out of line.
const columns = `id, event_id, topic, key, type, source, coalesce(time, created_at) AS time, content_type,
  correlation_id, causation_id, headers, payload, schema_fp,
  256 + coalesce(octet_length(payload), 0) + coalesce(pg_column_size(headers), 0) AS size`

// pageHead and pageTail end a page with the row that reaches $6 bytes, and add the
// token. The LIMIT between them is never left out: without it a table that has
// never been analysed gets a sequential scan and a sort.
const (
	pageHead = `SELECT w.*, (SELECT token FROM {s}.incarnation) FROM (
  SELECT q.*, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING)::bigint AS total FROM (`
	pageTail = `) q
) w WHERE total - size < $6::bigint ORDER BY id`
)

// ofShards chooses the events of the shards $4; NULL is all.
const ofShards = ` AND ($4::smallint[] IS NULL OR {s}.shard(key, event_id) = ANY($4::smallint[]))`

// filterMark is where a pipeline's filter goes; without one it stays, a comment.
const filterMark = `/*filter*/`

// latest is the newest position of each pipeline and shard.
const latest = `SELECT DISTINCT ON (p.pipeline, q.shard) p.pipeline, q.shard, p.n, p.s
  FROM {s}.position p, unnest(p.shards) q(shard) ORDER BY p.pipeline, q.shard, p.n DESC`

// Reading.
const (
	// A statement of its own, outside any transaction that writes, on the
	// primary. pg_sequence_last_value, never SELECT last_value, which is a dirty
	// read that may be up to 32 ahead. The CASE reads h before age() reads the
	// next xid; OFFSET 0 keeps the planner from merging the two levels.
	sqlProbe = `SELECT h, cur::text, pg_snapshot_xmax(cur)::text::bigint
    + CASE WHEN h IS NOT NULL THEN age(pg_snapshot_xmax(cur)::xid) END,
  (SELECT token FROM {s}.incarnation), pg_is_in_recovery()
FROM (SELECT pg_sequence_last_value('{s}.event_id_seq') h, pg_current_snapshot() cur OFFSET 0) p`
	sqlLate = pageHead + `SELECT l.* FROM unnest($1::text::xid8[]) x CROSS JOIN LATERAL (
    SELECT ` + columns + ` FROM {s}.event
    WHERE xid = x AND id <= $2::bigint AND id > $3::bigint` + ofShards + filterMark + `
    ORDER BY id LIMIT $5::int) l ORDER BY l.id LIMIT $5::int` + pageTail
	sqlFresh = pageHead + `SELECT ` + columns + ` FROM {s}.event
    WHERE id > $3::bigint AND id <= $2::bigint` + ofShards + `
      AND pg_visible_in_snapshot(xid, $1::text::pg_snapshot)` + filterMark + `
    ORDER BY id LIMIT $5::int` + pageTail
	sqlNext    = `SELECT id - 1 FROM {s}.event WHERE id > $1::bigint AND id <= $2::bigint ORDER BY id LIMIT 1`
	sqlSchemas = `SELECT fp, format, text, content_type FROM {s}.schema WHERE fp = ANY($1::bigint[])`
)

// Positions.
const (
	// FOR SHARE, not FOR KEY SHARE: a takeover changes no key column, so only
	// this keeps a takeover and a flush apart. Without the token a flush that
	// was under way during a crash would store a position from before it.
	sqlFlush = `WITH a AS (SELECT * FROM unnest($3::smallint[], $4::bigint[], $5::int[]) a(shard, epoch, g)),
l AS (SELECT l.shard, a.g FROM a JOIN {s}.lease l ON l.pipeline = $1 AND l.shard = a.shard AND l.epoch = a.epoch AND l.owner = $2
  ORDER BY l.shard FOR SHARE OF l),
lg AS (SELECT g, array_agg(shard) shards FROM l GROUP BY g),
p AS (SELECT * FROM unnest($6::text[], $7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::text[], $12::bigint[])
  WITH ORDINALITY p(s, h, b, s2, h2, b2, c, g))
INSERT INTO {s}.position (pipeline, shards, owner, s, h, b, s2, h2, b2, c)
SELECT $1, lg.shards, $2, p.s::pg_snapshot, p.h, p.b::xid8, nullif(p.s2, '')::pg_snapshot,
  CASE WHEN p.s2 <> '' THEN p.h2 END, CASE WHEN p.s2 <> '' THEN p.b2::xid8 END, p.c
FROM lg JOIN p ON p.g = lg.g
WHERE (SELECT token FROM {s}.incarnation) = $13::uuid
RETURNING shards`
	// Rows that are the latest of some shard stay, however old they are.
	sqlPrune = `WITH latest AS MATERIALIZED (SELECT DISTINCT ON (q.shard) p.n FROM {s}.position p, unnest(p.shards) q(shard)
  WHERE p.pipeline = $1 ORDER BY q.shard, p.n DESC)
DELETE FROM {s}.position p WHERE p.pipeline = $1
  AND p.n < (SELECT max(n) FROM latest) AND NOT EXISTS (SELECT FROM latest l WHERE l.n = p.n)`
	sqlLoad = `SELECT DISTINCT ON (q.shard) q.shard, p.s::text, p.h, p.b::text, coalesce(p.s2::text, ''),
  coalesce(p.h2, 0), coalesce(p.b2::text, '0'), p.c, (SELECT token FROM {s}.incarnation)
FROM {s}.position p, unnest(p.shards) q(shard) WHERE p.pipeline = $1 AND q.shard = ANY($2::smallint[]) ORDER BY q.shard, p.n DESC`
)

// Identity and start checks.
const (
	sqlToken    = `SELECT token FROM {s}.incarnation`
	sqlNewToken = `INSERT INTO {s}.incarnation DEFAULT VALUES ON CONFLICT DO NOTHING`
	sqlIdentity = `SELECT m.shards, m.system_identifier, c.system_identifier, m.database_oid::bigint, d.oid::bigint
FROM {s}.meta m, pg_control_system() c, pg_database d WHERE d.datname = current_database()`
	// "Stored xids are ahead" alone would not do: after some traffic a restored
	// position lies behind the cluster's own xids and skips events silently.
	sqlAhead = `SELECT coalesce((SELECT xid FROM {s}.event ORDER BY xid DESC LIMIT 1) >= next, false)
  OR EXISTS (SELECT FROM {s}.position WHERE b > next OR b2 > next)
FROM (SELECT (pg_snapshot_xmax(cur)::text::bigint + age(pg_snapshot_xmax(cur)::xid))::text::xid8 AS next
  FROM (SELECT pg_current_snapshot() cur OFFSET 0) c OFFSET 0) n`
	sqlVersion = `SELECT version FROM {s}.schema_version`
	sqlGrants  = `SELECT current_user, priv, CASE kind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || '{s}.' || obj
FROM unnest($1::text[], $2::text[], $3::text[]) r(kind, obj, priv)
WHERE NOT CASE kind WHEN 'S' THEN has_sequence_privilege('{s}.' || obj, priv) ELSE has_table_privilege('{s}.' || obj, priv) END
LIMIT 1`
)

// Instances and leases.
const (
	// An instance is live from a lease before its last heartbeat until a lease after
	// it. The first bound is for a clock that was set back: a row written before that
	// would keep a dead instance's leases until the clock has caught up.
	// Clock_timestamp, not now: a statement may have waited.
	sqlLive   = `(i.expires_at > clock_timestamp() AND i.beat_at - (i.expires_at - i.beat_at) < clock_timestamp())`
	sqlJoin   = `INSERT INTO {s}.instance (name, expires_at, pipelines) VALUES ($1, clock_timestamp() + $2::bigint * interval '1 ms', $3::text[])`
	sqlBeat   = `UPDATE {s}.instance SET beat_at = clock_timestamp(), expires_at = clock_timestamp() + $2::bigint * interval '1 ms', report = $3::text::jsonb WHERE name = $1`
	sqlRetire = `UPDATE {s}.instance SET pipelines = '{}' WHERE name = $1`
	// Not more than a living instance, where the broker answers; otherwise one that
	// gets on. Two that withdraw at once see that when they look whether to come back.
	sqlWithdraw = `UPDATE {s}.instance SET pipelines = array_remove(pipelines, $2) WHERE name = $1 AND $2 = ANY (pipelines)
  AND EXISTS (SELECT FROM {s}.instance i WHERE i.name <> $1 AND $2 = ANY (i.pipelines) AND ` + sqlLive + `
    AND ($3::boolean OR EXISTS (SELECT FROM {s}.position p WHERE p.pipeline = $2 AND p.owner = i.name
      AND p.at > clock_timestamp() - $4::bigint * interval '1 ms')))`
	sqlComeBack = `UPDATE {s}.instance SET pipelines = pipelines || $2::text WHERE name = $1 AND NOT $2 = ANY (pipelines)
  AND ($3::boolean OR NOT EXISTS (SELECT FROM {s}.instance i WHERE i.name <> $1 AND $2 = ANY (i.pipelines) AND ` + sqlLive + `))`
	sqlLeave = `DELETE FROM {s}.instance WHERE name = $1`
	// The first instances to join hold one shard more if the shares are not equal.
	// An expired instance has no share, but keeps its leases until expire.
	sqlLook = `WITH live AS (SELECT name, row_number() OVER (ORDER BY started_at, name) AS rank, count(*) OVER () AS n
  FROM {s}.instance i WHERE $1 = ANY (pipelines) AND ` + sqlLive + `)
SELECT (SELECT $3::int / n + CASE WHEN rank <= $3::int % n THEN 1 ELSE 0 END FROM live WHERE name = $2),
  count(*) FILTER (WHERE i.name IS NULL),
  coalesce(array_agg(l.shard ORDER BY l.shard) FILTER (WHERE l.owner = $2), '{}'),
  coalesce(array_agg(l.epoch ORDER BY l.shard) FILTER (WHERE l.owner = $2), '{}'),
  (SELECT token FROM {s}.incarnation)
FROM {s}.lease l LEFT JOIN {s}.instance i ON i.name = l.owner AND ` + sqlLive + `
WHERE l.pipeline = $1`
	sqlExpire   = `DELETE FROM {s}.instance i WHERE NOT ` + sqlLive + ` AND name <> $1`
	sqlLockFree = `SELECT coalesce(array_agg(f.shard), '{}') FROM (SELECT l.shard FROM {s}.lease l
  WHERE l.pipeline = $1 AND NOT EXISTS (SELECT FROM {s}.instance i WHERE i.name = l.owner)
  ORDER BY l.shard FOR UPDATE OF l) f`
	sqlTake = `UPDATE {s}.lease SET owner = $2, epoch = epoch + 1 WHERE pipeline = $1 AND shard IN (
  SELECT l.shard FROM {s}.lease l WHERE l.pipeline = $1 AND l.shard = ANY($3::smallint[])
    AND NOT EXISTS (SELECT FROM {s}.instance i WHERE i.name = l.owner) ORDER BY l.shard LIMIT $4::int)
  AND EXISTS (SELECT FROM {s}.instance i WHERE i.name = $2)
RETURNING shard, epoch`
	// With the epochs: a release that the server runs late must not meet leases
	// that the same instance has taken again.
	sqlRelease = `WITH mine AS (SELECT l.shard FROM {s}.lease l JOIN unnest($3::smallint[], $4::bigint[]) a(shard, epoch)
    ON a.shard = l.shard AND a.epoch = l.epoch
  WHERE l.pipeline = $1 AND l.owner = $2 ORDER BY l.shard FOR UPDATE OF l)
UPDATE {s}.lease l SET owner = '' FROM mine WHERE l.pipeline = $1 AND l.shard = mine.shard`
)

// Retention.
const (
	sqlSlotState = `SELECT xid::text, created_at, clock_timestamp() FROM {s}.event_{n} ORDER BY {order} LIMIT 1`
	// NOWAIT, not a timeout: a queued lock request stalls every reader behind it.
	sqlSlotLock  = `LOCK TABLE {s}.event_{n} IN ACCESS EXCLUSIVE MODE NOWAIT`
	sqlSlotCheck = `SELECT NOT EXISTS (SELECT FROM {s}.pipeline p CROSS JOIN generate_series(0, $1::int - 1) g
    LEFT JOIN (` + latest + `) l ON l.pipeline = p.name AND l.shard = g
  WHERE (pg_snapshot_xmin(l.s) > newest.xid) IS NOT TRUE)
FROM (SELECT xid FROM {s}.event_{n} ORDER BY xid DESC LIMIT 1) newest`
	sqlSlotCut = `TRUNCATE {s}.event_{n}`
	// setval, not nextval, which can jump after a crash.
	sqlSlotUp = `SELECT setval('{s}.slot_seq', $1::bigint + 1)
WHERE pg_sequence_last_value('{s}.slot_seq') = $1::bigint AND NOT EXISTS (SELECT FROM {s}.event_{n})`
)

func newQueries(schema string) queries {
	in := strings.NewReplacer("{s}", schema).Replace
	in = planted.Rewrite(planted.NoFencing, in, "l.epoch = a.epoch AND l.owner = $2", "$2 <> ''")
	in = planted.Rewrite(planted.NoIncarnationCheck, in, "(SELECT token FROM {s}.incarnation) = $", "gen_random_uuid() <> $")
	in = planted.Rewrite(planted.TruncationWithoutLock, in, sqlSlotLock, "SELECT 1")
	return queries{
		parkingQueries: newParkingQueries(in),
		probe:          in(sqlProbe),
		late:           in(sqlLate),
		fresh:          in(sqlFresh),
		next:           in(sqlNext),
		schemas:        in(sqlSchemas),
		flush:          in(sqlFlush),
		prune:          in(sqlPrune),
		load:           in(sqlLoad),
		token:          in(sqlToken),
		newToken:       in(sqlNewToken),
		identity:       in(sqlIdentity),
		ahead:          in(sqlAhead),
		version:        in(sqlVersion),
		grants:         in(sqlGrants),
		join:           in(sqlJoin),
		beat:           in(sqlBeat),
		retire:         in(sqlRetire),
		withdraw:       in(sqlWithdraw),
		comeBack:       in(sqlComeBack),
		leave:          in(sqlLeave),
		filter:         in(sqlFilter),
		filterShare:    in(sqlFilterShare),
		registerLock:   in(sqlRegisterLock),
		registerCopy:   in(sqlRegisterCopy),
		registerCopied: in(sqlRegisterCopied),
		register:       in(sqlRegister),
		registerLeases: in(sqlRegisterLeases),
		registerStart:  in(sqlRegisterStart),
		look:           in(sqlLook),
		expire:         in(sqlExpire),
		lockFree:       in(sqlLockFree),
		take:           in(sqlTake),
		release:        in(sqlRelease),
		slotState:      in(sqlSlotState),
		slotLock:       in(sqlSlotLock),
		slotCheck:      in(sqlSlotCheck),
		slotCut:        in(sqlSlotCut),
		slotUp:         in(sqlSlotUp),
	}
}
