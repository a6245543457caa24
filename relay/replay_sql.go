package relay

import "strings"

// replayWhere chooses the events of a replay. A shard's group says what of it had
// been passed; see position for the rule. Scalar subqueries, because the planner
// could make a NOT EXISTS a join that reads all parked events for each page.
const replayWhere = ` WHERE id > $1::bigint AND id <= $2::bigint
  AND ($3::timestamptz IS NULL OR created_at >= $3) AND ($4::timestamptz IS NULL OR created_at < $4)
  AND ($5::text[] IS NULL OR key = ANY($5)) AND ($6::text[] IS NULL OR type = ANY($6)) AND ($7::text[] IS NULL OR topic = ANY($7))
  AND ($8::text[] IS NULL OR type = ANY($8)) AND ($9::text[] IS NULL OR topic = ANY($9))
  AND (id <= ($12::bigint[])[($10::int[])[{s}.shard(key, event_id) + 1]]
      AND pg_visible_in_snapshot(xid, ($11::text[]::pg_snapshot[])[($10::int[])[{s}.shard(key, event_id) + 1]])
    OR id <= ($14::bigint[])[($10::int[])[{s}.shard(key, event_id) + 1]]
      AND pg_visible_in_snapshot(xid, ($13::text[]::pg_snapshot[])[($10::int[])[{s}.shard(key, event_id) + 1]]))
  AND (SELECT true FROM {s}.parked k WHERE k.pipeline = $15 AND k.event_id = e.event_id AND k.source = e.source
    AND k.state <> 'discarded' LIMIT 1) IS NULL
  AND (SELECT true FROM {s}.parked k WHERE k.pipeline = $15 AND k.event_id = e.event_id AND k.source = e.source
    AND k.state = 'discarded' LIMIT 1) IS NULL`

const (
	sqlReplayPage = pageHead + `SELECT ` + columns + ` FROM {s}.event e` + replayWhere + `
    ORDER BY id LIMIT $16::int) q
) w WHERE total - size < $17::bigint ORDER BY id`
	sqlReplayCount = `SELECT topic, type, count(*) FROM {s}.event e` + replayWhere + ` GROUP BY topic, type`

	// A row is never deleted alone: while a slot's first row is there, all are.
	sqlReplayGone = `SELECT coalesce(array_agg(m.slot), '{}'), (SELECT token FROM {s}.incarnation)
FROM unnest($1::smallint[], $2::bigint[], $3::text[]) m(slot, id, event_id)
WHERE NOT EXISTS (SELECT FROM {s}.event e WHERE e.slot = m.slot AND e.id = m.id AND e.event_id = m.event_id::uuid)`
	sqlReplaySlot = `SELECT {n}, f.id, f.event_id::text, f.created_at, l.id, l.created_at
FROM (SELECT id, event_id, created_at FROM {s}.event_{n} ORDER BY id LIMIT 1) f,
  (SELECT id, created_at FROM {s}.event_{n} ORDER BY id DESC LIMIT 1) l`

	sqlReplayRegistered = `SELECT EXISTS (SELECT FROM {s}.pipeline WHERE name = $1)`
	sqlReplayStart      = `INSERT INTO {s}.replay (pipeline, destination, filter, slots, bound, first, last, cursor, runner, requested_by, reason)
VALUES ($1, $2, $3::jsonb, $4::jsonb, $5::jsonb, $6, $7, $6, $8, $9, $10) RETURNING id::text`
	// Ended ones, and those that nobody has gone on with for a month.
	sqlReplayForget = `DELETE FROM {s}.replay WHERE id IN (SELECT id FROM {s}.replay
  WHERE state IN ('done', 'truncated') OR updated_at < clock_timestamp() - interval '30 days' ORDER BY started_at DESC OFFSET $1::int)`
	sqlReplayTake = `UPDATE {s}.replay SET runner = $2, state = 'running', error = '', updated_at = clock_timestamp()
WHERE id::text = $1 AND state IN ('running', 'stopped')`
	sqlReplayLoad = `SELECT pipeline, destination, filter, slots, bound, first, last, cursor, published, state, runner, held, refused
FROM {s}.replay WHERE id::text = $1`
	// Without the token: whatever a replay covers was committed before its row, so a
	// server that has the row has all of that, and the cursor means the same there.
	sqlReplaySave = `UPDATE {s}.replay SET cursor = $3, published = $4, state = $5, error = $6, held = $7, refused = coalesce($8::text::jsonb, refused), updated_at = clock_timestamp()
WHERE id::text = $1 AND runner = $2`
	sqlReplayList = `SELECT id::text, pipeline, destination, filter, state, error, published, refused, held,
  CASE WHEN last > first THEN (cursor - first)::float8 / (last - first) ELSE 1 END,
  requested_by, role, reason, started_at, updated_at FROM {s}.replay ORDER BY started_at DESC, id DESC`
)

func (r *replayer) sql(query string) string { return inSchema(query, r.cfg.Schema) }

// slotQuery finds the first and last row of every slot.
func (r *replayer) slotQuery() string {
	var list []string
	for n := range slots {
		list = append(list, slotSQL(sqlReplaySlot, n))
	}
	return r.sql(strings.Join(list, " UNION ALL "))
}
