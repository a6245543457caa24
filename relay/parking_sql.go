package relay

// parkingQueries are the statements about parked events. A lane is a
// destination and key; the head of a lane is its event with the lowest n.
type parkingQueries struct {
	anyParked, parkedLanes, lanesWith string
	park                              string
	dueHeads, claimHeads, claimQueue  string
	fence, unpark, parkAgain, promote string
	unclaim                           string
	expireParked, sweepDiscarded      string
	hasten                            string
}

// parkedColumns are a page's columns, so that item.scan reads both.
const (
	parkedColumns = `p.n, p.event_id, p.topic, p.key, p.type, p.source, p.time, p.content_type,
  p.correlation_id, p.causation_id, p.headers, p.payload, p.schema_fp, ` + parkedSize
	parkedSize = `256 + coalesce(octet_length(p.payload), 0) + coalesce(pg_column_size(p.headers), 0) AS size`
)

// Parking.
const (
	sqlAnyParked   = `SELECT EXISTS (SELECT FROM {s}.parked WHERE pipeline = $1 AND state <> 'discarded')`
	sqlParkedLanes = `SELECT DISTINCT destination, key FROM {s}.parked WHERE pipeline = $1 AND blocks`
	sqlLanesWith   = `SELECT x.topic, x.key FROM unnest($2::text[], $3::text[]) x(topic, key)
WHERE EXISTS (SELECT FROM {s}.parked p WHERE p.pipeline = $1 AND p.destination = x.topic AND p.key = x.key AND p.blocks)`
	// Runs in the transaction of the flush that passes these events, after it: the
	// leases are locked, so nobody else changes these lanes. The copy is made in
	// the database. Only the head of a lane is retried or dead, all others are
	// blocked; one that should have been blocked behind an event that has gone
	// meanwhile is retried at once. A conflict means that the very event is parked
	// already (the log was rebased).
	sqlPark = `INSERT INTO {s}.parked (pipeline, event_id, topic, destination, key, type, source, time, content_type, correlation_id,
  causation_id, headers, payload, schema_fp, state, blocks, class, reason, attempts, next_attempt_at)
SELECT $1, e.event_id, e.topic, x.topic, e.key, e.type, e.source, coalesce(e.time, e.created_at), e.content_type, e.correlation_id,
  e.causation_id, e.headers, e.payload, e.schema_fp,
  CASE WHEN $2::boolean AND e.key <> '' AND (
      row_number() OVER (PARTITION BY x.topic, e.key ORDER BY x.ord) > 1
      OR EXISTS (SELECT FROM {s}.parked p WHERE p.pipeline = $1 AND p.destination = x.topic AND p.key = e.key AND p.blocks)) THEN 'blocked'
    WHEN x.state = 'blocked' THEN 'retrying' ELSE x.state END,
  $2::boolean AND e.key <> '', x.class, x.reason, x.attempts,
  clock_timestamp() + random() * x.delay * interval '1 ms'
FROM unnest($3::bigint[], $4::text[]::uuid[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bigint[], $11::text[])
  WITH ORDINALITY x(id, event_id, state, class, reason, attempts, delay, topic, ord)
JOIN {s}.event e ON e.id = x.id AND e.event_id = x.event_id AND {s}.shard(e.key, e.event_id) = ANY($10::smallint[])
ORDER BY x.ord
ON CONFLICT DO NOTHING`
)

// Retrying.
const (
	// The topics are found by skipping through the index. Each has its own limit:
	// a bad one with a million events does not hide the others.
	sqlDueHeads = `WITH RECURSIVE t(topic) AS (
  (SELECT destination FROM {s}.parked WHERE pipeline = $1 AND state = 'retrying' ORDER BY destination LIMIT 1)
  UNION ALL SELECT (SELECT p.destination FROM {s}.parked p WHERE p.pipeline = $1 AND p.state = 'retrying' AND p.destination > t.topic
    ORDER BY p.destination LIMIT 1) FROM t WHERE t.topic IS NOT NULL)
SELECT h.* FROM t CROSS JOIN LATERAL (SELECT p.n, p.destination, p.key, p.shard, p.blocks, p.attempts, coalesce(p.action, 0) FROM {s}.parked p
  WHERE p.pipeline = $1 AND p.state = 'retrying' AND p.destination = t.topic AND p.shard = ANY($2::smallint[])
    AND p.next_attempt_at <= clock_timestamp()
  ORDER BY p.next_attempt_at, p.n LIMIT $4::int) h
WHERE t.topic IS NOT NULL AND t.topic <> ALL($3::text[])`
	// A claim is committed before its event is published, under the lease, and counts
	// as long as the lease has the claim's epoch and a living owner. Discarding
	// respects it. An event that was discarded meanwhile is not claimed: an UPDATE
	// looks at its row again when it has waited for it.
	claimHead = `WITH l AS (SELECT l.shard, l.epoch FROM unnest($3::smallint[], $4::bigint[]) a(shard, epoch)
  JOIN {s}.lease l ON l.pipeline = $1 AND l.shard = a.shard AND l.epoch = a.epoch AND l.owner = $2
  WHERE (SELECT token FROM {s}.incarnation) = $5::uuid ORDER BY l.shard FOR SHARE OF l),
w AS (SELECT q.n, q.size, sum(q.size) OVER (ORDER BY q.n ROWS UNBOUNDED PRECEDING) AS total FROM (`
	claimTail = `) q),
c AS (UPDATE {s}.parked p SET claim = l.epoch, unanswered = p.unanswered OR p.claim IS NOT NULL
  FROM w, l WHERE p.n = w.n AND w.total - w.size < $6::bigint AND l.shard = p.shard AND p.state IN ('retrying', 'blocked')
  RETURNING ` + parkedColumns + `)
SELECT c.*, 0::bigint AS total, (SELECT token FROM {s}.incarnation) FROM c ORDER BY c.n`
	sqlClaimHeads = claimHead + `SELECT p.n, ` + parkedSize + ` FROM {s}.parked p
    WHERE p.pipeline = $1 AND p.n = ANY($7::bigint[]) AND p.state = 'retrying'` + claimTail
	// The events of lanes from their heads on.
	sqlClaimQueue = claimHead + `SELECT f.n, f.size FROM unnest($7::text[], $8::text[]) x(topic, key) CROSS JOIN LATERAL (
      SELECT p.n, ` + parkedSize + ` FROM {s}.parked p
      WHERE p.pipeline = $1 AND p.destination = x.topic AND p.key = x.key AND p.blocks AND p.state = 'blocked' ORDER BY p.n LIMIT $9::int) f
    ORDER BY f.n LIMIT $10::int` + claimTail
	// Only claims of this owner's present epochs: a statement that the server runs
	// late does not touch the next owner's.
	sqlUnclaim = `UPDATE {s}.parked p SET claim = NULL, unanswered = p.unanswered OR coalesce(p.n = ANY($4::bigint[]), false)
FROM {s}.lease l WHERE p.n = ANY($3::bigint[]) AND l.pipeline = $1 AND l.owner = $2 AND l.shard = p.shard AND l.epoch = p.claim`
	// As a flush does, see sqlFlush: the number of leases that are still ours.
	sqlFence = `SELECT count(*) FROM (SELECT FROM unnest($3::smallint[], $4::bigint[]) a(shard, epoch)
  JOIN {s}.lease l ON l.pipeline = $1 AND l.shard = a.shard AND l.epoch = a.epoch AND l.owner = $2
  WHERE (SELECT token FROM {s}.incarnation) = $5::uuid ORDER BY l.shard FOR SHARE OF l) l`
	sqlUnpark = `DELETE FROM {s}.parked WHERE pipeline = $1 AND n = ANY($2::bigint[])`
	// A head that was redriven while it was being published has its attempts before
	// it: this one began before.
	sqlParkAgain = `UPDATE {s}.parked p SET claim = NULL, attempts = p.attempts + 1, class = x.class, reason = x.reason,
  state = CASE WHEN x.class = 'rejected' OR p.attempts + 1 >= $5::int
      OR p.retry_since < clock_timestamp() - $6::bigint * interval '1 ms' THEN 'dead' ELSE 'retrying' END,
  next_attempt_at = clock_timestamp() + random() * least($8::float8, $7::float8 * 2 ^ least(p.attempts, 30)) * interval '1 ms'
FROM unnest($2::bigint[], $3::text[], $4::text[], $9::bigint[]) x(n, class, reason, action)
WHERE p.pipeline = $1 AND p.n = x.n AND p.state <> 'discarded' AND (x.action < 0 OR x.action = coalesce(p.action, 0))`
	// The next of each lane has its turn, if it was waiting.
	sqlPromote = `UPDATE {s}.parked h SET state = 'retrying', next_attempt_at = clock_timestamp(), retry_since = clock_timestamp()
FROM unnest($2::text[], $3::text[]) x(topic, key)
WHERE h.state = 'blocked' AND h.n = (SELECT p.n FROM {s}.parked p
  WHERE p.pipeline = $1 AND p.destination = x.topic AND p.key = x.key AND p.blocks ORDER BY p.n LIMIT 1)`
	// Events whose topic has been bad for too long, without an attempt of their own.
	sqlExpireParked = `UPDATE {s}.parked SET state = 'dead' WHERE n IN (SELECT n FROM {s}.parked
  WHERE pipeline = $1 AND destination = ANY($2::text[]) AND state = 'retrying' AND shard = ANY($3::smallint[])
    AND next_attempt_at < clock_timestamp() - $4::bigint * interval '1 ms'
    AND retry_since < clock_timestamp() - $4::bigint * interval '1 ms' LIMIT 1000)`
	// No pause is that long: the clock was set back.
	sqlHasten = `UPDATE {s}.parked SET next_attempt_at = clock_timestamp() WHERE n IN (SELECT n FROM {s}.parked
  WHERE pipeline = $1 AND state = 'retrying' AND next_attempt_at > clock_timestamp() + 2 * $2::bigint * interval '1 ms' LIMIT 10000)`
	sqlSweepDiscarded = `DELETE FROM {s}.parked p USING {s}.parked_action a WHERE a.n = p.action AND p.state = 'discarded'
  AND a.at < clock_timestamp() - $1::bigint * interval '1 ms'`
)

func newParkingQueries(in func(string) string) parkingQueries {
	return parkingQueries{
		anyParked:      in(sqlAnyParked),
		parkedLanes:    in(sqlParkedLanes),
		lanesWith:      in(sqlLanesWith),
		park:           in(sqlPark),
		dueHeads:       in(sqlDueHeads),
		claimHeads:     in(sqlClaimHeads),
		claimQueue:     in(sqlClaimQueue),
		unclaim:        in(sqlUnclaim),
		fence:          in(sqlFence),
		unpark:         in(sqlUnpark),
		parkAgain:      in(sqlParkAgain),
		promote:        in(sqlPromote),
		expireParked:   in(sqlExpireParked),
		hasten:         in(sqlHasten),
		sweepDiscarded: in(sqlSweepDiscarded),
	}
}
