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
	// BlockedKeys is the number of topics' keys that stand still: later events of
	// theirs wait behind a parked one, or will.
	BlockedKeys int64 `json:"blocked_keys"`
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
		[]any{&name, &k.Retrying, &k.Blocked, &k.Dead, &k.BlockedKeys, &k.Exact, &k.OldestSeconds}, func() {
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
