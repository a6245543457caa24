package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Status is what the database knows of an outbox, whichever processes publish it.
type Status struct {
	Schema string `json:"schema"`
	// At is the database's clock, by which all ages are measured.
	At        time.Time        `json:"at"`
	Pipelines []PipelineStatus `json:"pipelines"`
	Instances []InstanceStatus `json:"instances"`
	Slots     []SlotStatus     `json:"slots"`
}

// PipelineStatus says how far a pipeline has come and who publishes it.
type PipelineStatus struct {
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	// Filter is what it publishes.
	Filter Filter `json:"filter"`
	// Backlog is the number of committed events that the stored position has not
	// passed. Up to about [BacklogCounted] they are counted; beyond that the number
	// comes from the distance of ids and BacklogExact is false. A relay stores its
	// position a few times a second, so a busy pipeline is a little further than
	// this says. Events that the filter leaves out do not count.
	Backlog      int64 `json:"backlog"`
	BacklogExact bool  `json:"backlog_exact"`
	// OldestUnsentSeconds is the age of the oldest event of the backlog, 0 if there
	// is none.
	OldestUnsentSeconds float64 `json:"oldest_unsent_seconds"`
	// PositionAgeSeconds is the age of the stored position that is oldest among
	// the shards'. It grows while there is nothing to publish, too.
	PositionAgeSeconds float64 `json:"position_age_seconds"`
	// Positions is how many different ones the shards have.
	Positions int `json:"positions"`
	// Parked events wait outside of the log; they are not in the backlog.
	Parked ParkedStatus `json:"parked"`
	// Owners are the instances that hold leases, by name.
	Owners []Owner `json:"owners"`
	// PublishedPerSecond and Circuits are what live instances said in their last
	// heartbeat, at most a third of their lease ago: the mean of ten seconds, and the
	// circuits of the broker and of topics that are not closed.
	PublishedPerSecond float64         `json:"published_per_second"`
	Circuits           []CircuitStatus `json:"circuits"`
	// MoreCircuits is the number of topics' circuits that are not listed: an instance
	// names ten.
	MoreCircuits int `json:"more_circuits"`
	// Unowned is the number of shards that nobody publishes: free, or left behind
	// by an instance that is silent and waiting to be taken over.
	Unowned int `json:"unowned"`
}

// ParkedStatus counts a pipeline's parked events, up to [ParkedCounted] of them.
type ParkedStatus struct {
	Retrying int64 `json:"retrying"` // tried again by themselves
	Blocked  int64 `json:"blocked"`  // wait behind an earlier event of their key
	Dead     int64 `json:"dead"`     // wait for a person
	// Exact is false if there are more than were counted.
	Exact bool `json:"exact"`
	// OldestSeconds is the time since the first of those counted was parked, 0 if
	// none is.
	OldestSeconds float64 `json:"oldest_seconds"`
}

// Owner is an instance with its share of a pipeline.
type Owner struct {
	Instance string `json:"instance"`
	Shards   int    `json:"shards"`
	Live     bool   `json:"live"` // false: its lease has expired, a takeover is due
}

// InstanceStatus is a running relay, or one that has not said good-bye.
type InstanceStatus struct {
	Name      string    `json:"name"`
	StartedAt time.Time `json:"started_at"`
	// RunningSeconds is the time since StartedAt.
	RunningSeconds float64 `json:"running_seconds"`
	// ExpiresInSeconds is how much of the lease is left; negative when it has
	// expired.
	ExpiresInSeconds float64 `json:"expires_in_seconds"`
	Live             bool    `json:"live"`
}

// SlotStatus is a piece of the log that is truncated as a whole.
type SlotStatus struct {
	Slot    int  `json:"slot"`
	Current bool `json:"current"` // takes new events
	// Rows is the distance of the first and last id, about the number of events.
	Rows          int64   `json:"rows"`
	Bytes         int64   `json:"bytes"`          // with indexes
	OldestSeconds float64 `json:"oldest_seconds"` // age of the first event, 0 if empty
}

// BacklogCounted is up to how many events a backlog is counted.
const BacklogCounted = 10_000

// ParkedCounted is up to how many parked events of a pipeline are counted.
const ParkedCounted = 100_000

const (
	sqlStatusPipelines = `SELECT p.name, p.created_at, p.filter FROM {s}.pipeline p ORDER BY p.name`
	sqlStatusOwners    = `SELECT l.pipeline, l.owner, count(*)::int, coalesce(bool_or(` + sqlLive + `), false)
FROM {s}.lease l LEFT JOIN {s}.instance i ON i.name = l.owner GROUP BY l.pipeline, l.owner ORDER BY l.pipeline, l.owner`
	sqlStatusParked = `SELECT p.name, count(*) FILTER (WHERE state = 'retrying'), count(*) FILTER (WHERE state = 'blocked'),
  count(*) FILTER (WHERE state = 'dead'), count(*) < $1::bigint, extract(epoch FROM clock_timestamp() - min(parked_at))::float8
FROM {s}.pipeline p CROSS JOIN LATERAL (
  SELECT state, parked_at FROM {s}.parked WHERE pipeline = p.name AND state <> 'discarded' LIMIT $1::bigint) e GROUP BY p.name`
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
      WHERE e.xid = x.x AND e.id <= greatest(p.h, p.c) AND e.shard = ANY(g.shards)
        AND (f.topics IS NULL OR f.topics ? e.topic) AND (f.types IS NULL OR f.types ? e.type)
        AND NOT (e.id <= p.h AND pg_visible_in_snapshot(e.xid, p.s))
        AND (e.id <= p.c AND pg_visible_in_snapshot(e.xid, p.s2)) IS NOT TRUE
      ORDER BY e.id LIMIT g.most) e
    LIMIT g.most) e) late
CROSS JOIN LATERAL (
  SELECT count(*) AS seen, count(*) FILTER (WHERE wanted) AS wanted, count(*) FILTER (WHERE wanted AND mine) AS rows, max(id) AS last,
    min(created_at) FILTER (WHERE wanted AND mine) AS oldest FROM (
    SELECT e.id, e.created_at, e.shard = ANY(g.shards) AS mine,
      (f.topics IS NULL OR f.topics ? e.topic) AND (f.types IS NULL OR f.types ? e.type) AS wanted FROM {s}.event e
    WHERE e.id > greatest(p.h, p.c) ORDER BY e.id LIMIT g.most) e) fresh`
)

// ReadStatus reads the state of an outbox from its database. Its work is bounded:
// it looks at no more than about [BacklogCounted] events a pipeline. An empty
// schema means "outbox". The relay's grants are enough.
func ReadStatus(ctx context.Context, pool *pgxpool.Pool, schema string) (Status, error) {
	cfg := Config{Schema: schema}.withDefaults()
	st := Status{Schema: cfg.Schema}
	s := statusReader{pool: pool, schema: cfg.Schema}
	err := cfg.checkSchema()
	if err == nil {
		st.Pipelines, st.At, err = s.pipelines(ctx)
	}
	if err == nil {
		st.Instances, err = s.instances(ctx)
	}
	if err == nil {
		st.Slots, err = s.slots(ctx)
	}
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", cfg.Schema, notMigrated(err))
	}
	return st, nil
}

// Pipelines lists the pipelines that are registered in an outbox, as [ReadStatus]
// does.
func Pipelines(ctx context.Context, pool *pgxpool.Pool, schema string) ([]PipelineStatus, error) {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return nil, err
	}
	list, _, err := statusReader{pool: pool, schema: cfg.Schema}.pipelines(ctx)
	if err != nil {
		return nil, fmt.Errorf("pipelines of %s: %w", cfg.Schema, notMigrated(err))
	}
	return list, nil
}

// notMigrated names the way out where a table is missing.
func notMigrated(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000") {
		return fmt.Errorf("%w (%s)", ErrNotMigrated, pg.Message)
	}
	return err
}

type statusReader struct {
	pool   *pgxpool.Pool
	schema string
}

func (s statusReader) each(ctx context.Context, query string, args, dest []any, f func()) error {
	rows, err := s.pool.Query(ctx, inSchema(query, s.schema), args...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, dest, func() error {
		f()
		return nil
	})
	return err
}

func (s statusReader) pipelines(ctx context.Context) (list []PipelineStatus, at time.Time, err error) {
	list = []PipelineStatus{}
	if err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&at); err != nil {
		return nil, at, err
	}
	index := map[string]int{}
	var p PipelineStatus
	if err := s.each(ctx, sqlStatusPipelines, nil, []any{&p.Name, &p.CreatedAt, &p.Filter}, func() {
		index[p.Name] = len(list)
		list = append(list, PipelineStatus{Name: p.Name, CreatedAt: p.CreatedAt, Filter: p.Filter, BacklogExact: true, Parked: ParkedStatus{Exact: true}, Owners: []Owner{}, Circuits: []CircuitStatus{}})
	}); err != nil {
		return nil, at, err
	}
	var name string
	var o Owner
	if err := s.each(ctx, sqlStatusOwners, nil, []any{&name, &o.Instance, &o.Shards, &o.Live}, func() {
		if i, ok := index[name]; ok {
			list[i].owned(o)
		}
	}); err != nil {
		return nil, at, err
	}
	var r pipelineReport
	if err := s.each(ctx, sqlStatusReports, nil, []any{&name, &o.Instance, &r}, func() {
		if i, ok := index[name]; ok {
			list[i].reported(o.Instance, r)
		}
	}); err != nil {
		return nil, at, err
	}
	var k ParkedStatus
	if err := s.each(ctx, sqlStatusParked, []any{ParkedCounted},
		[]any{&name, &k.Retrying, &k.Blocked, &k.Dead, &k.Exact, &k.OldestSeconds}, func() {
			if i, ok := index[name]; ok {
				list[i].Parked = k
			}
		}); err != nil {
		return nil, at, err
	}
	var g backlogPart
	err = s.each(ctx, sqlStatusBacklog, []any{BacklogCounted, shardCount},
		[]any{&name, &g.shards, &g.age, &g.counted, &g.more, &g.exact, &g.oldest}, func() {
			if i, ok := index[name]; ok {
				list[i].add(g)
			}
		})
	return list, at, err
}

func (p *PipelineStatus) owned(o Owner) {
	if !o.Live {
		p.Unowned += o.Shards
	}
	if o.Instance != "" {
		p.Owners = append(p.Owners, o)
	}
}

// backlogPart is what one distinct position of a pipeline contributes.
type backlogPart struct {
	shards        int
	age, oldest   float64
	counted, more int64
	exact         bool
}

func (p *PipelineStatus) add(g backlogPart) {
	p.Positions++
	p.Backlog += g.counted + g.more
	p.BacklogExact = p.BacklogExact && g.exact
	p.OldestUnsentSeconds = max(p.OldestUnsentSeconds, g.oldest)
	p.PositionAgeSeconds = max(p.PositionAgeSeconds, g.age)
}

func (s statusReader) instances(ctx context.Context) ([]InstanceStatus, error) {
	list := []InstanceStatus{}
	var i InstanceStatus
	err := s.each(ctx, sqlStatusInstances, nil, []any{&i.Name, &i.StartedAt, &i.RunningSeconds, &i.ExpiresInSeconds, &i.Live}, func() {
		list = append(list, i)
	})
	return list, err
}

func (s statusReader) slots(ctx context.Context) ([]SlotStatus, error) {
	list := []SlotStatus{}
	var l SlotStatus
	for n := range slots {
		if err := s.each(ctx, slotSQL(sqlStatusSlot, n), nil, []any{&l.Slot, &l.Current, &l.Rows, &l.Bytes, &l.OldestSeconds}, func() {
			list = append(list, l)
		}); err != nil {
			return nil, err
		}
	}
	return list, nil
}
