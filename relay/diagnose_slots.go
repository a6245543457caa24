package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	sqlSlotEnds = `SELECT pg_sequence_last_value('{s}.slot_seq') & 7, b.xid::text::bigint, a.created_at, b.created_at, clock_timestamp()
FROM (SELECT created_at FROM {s}.event_{n} ORDER BY id LIMIT 1) a, (SELECT xid, created_at FROM {s}.event_{n} ORDER BY xid DESC LIMIT 1) b`
	// As sqlSlotCheck: the pipelines whose positions have not passed a transaction, on
	// how many shards, and the lowest transaction that their snapshots wait for.
	sqlSlotHolders = `SELECT p.name, count(*)::int, coalesce(min(pg_snapshot_xmin(l.s)::text::bigint), 0)
FROM {s}.pipeline p CROSS JOIN generate_series(0, 63) g LEFT JOIN (` + latest + `) l ON l.pipeline = p.name AND l.shard = g
WHERE (pg_snapshot_xmin(l.s)::text::bigint > $1::bigint) IS NOT TRUE GROUP BY p.name ORDER BY p.name`
	// Whoever has the slot open: its truncation does not wait for them.
	sqlSlotLockers = `SELECT a.pid, '', coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.backend_xid::text, ''),
  a.xact_start, coalesce(a.state, ''), coalesce(host(a.client_addr), ''), coalesce(left(a.query, 200), ''), a.datname::text
FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid WHERE l.locktype = 'relation' AND l.granted AND l.relation = '{s}.event_{n}'::regclass
  AND a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start < clock_timestamp() - $1::bigint * interval '1 ms'`
)

// slotGrace is how long a slot may be due before somebody should have truncated it.
const slotGrace = 5 * time.Minute

// slotState is a slot that has events.
type slotState struct {
	n, current     int
	newest         int64 // transaction
	from, to, seen time.Time
}

func (d *diagnosis) logSlots(ctx context.Context) (string, error) {
	var list []slotState
	for n := range slots {
		s := slotState{n: n}
		err := d.one(ctx, slotSQL(sqlSlotEnds, n), nil, &s.current, &s.newest, &s.from, &s.to, &s.seen)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return "", err
		}
		list = append(list, s)
	}
	pipelines, _, err := statusReader{pool: d.pool, schema: d.cfg.Schema}.pipelines(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range list {
		if s.n != s.current && s.seen.Sub(s.to) > d.cfg.Retention+slotGrace {
			if err := d.dueSlot(ctx, s, pipelines); err != nil {
				return "", err
			}
		}
		next := (s.current + 1) & (slots - 1)
		turn := d.cfg.Retention / (slots - 2)
		if s.n == s.current && s.seen.Sub(s.from) > 2*turn+slotGrace && slices.ContainsFunc(list, func(o slotState) bool { return o.n == next }) {
			d.warn("see what is said of that slot", "the current slot %d takes events since %s instead of %s: slot %d, the next one, is not empty", s.n, stamp(s.from), turn, next)
		}
	}
	return fmt.Sprintf("%d of %d have events, none is kept for longer than the retention of %s", len(list), slots, d.cfg.Retention), nil
}

// dueSlot says who keeps a slot from being truncated.
func (d *diagnosis) dueSlot(ctx context.Context, s slotState, pipelines []PipelineStatus) error {
	what := fmt.Sprintf("slot %d, whose newest event is of %s, is kept for longer than the retention of %s", s.n, stamp(s.to), d.cfg.Retention)
	rows, err := d.pool.Query(ctx, d.sql(sqlSlotHolders), s.newest)
	if err != nil {
		return err
	}
	type holder struct {
		name   string
		shards int
		xmin   int64
	}
	holders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h holder, err error) {
		err = row.Scan(&h.name, &h.shards, &h.xmin)
		return h, err
	})
	if err != nil {
		return err
	}
	for _, h := range holders {
		i := slices.IndexFunc(pipelines, func(p PipelineStatus) bool { return p.Name == h.name })
		waits, err := d.open(ctx, sqlTransactionOf, h.xmin)
		switch {
		case err != nil:
			return err
		case len(waits) > 0:
			d.warn(waits[0].Cure(), "%s: pipeline %s has not passed it (%d shards), because this transaction was open when its position was stored, and is: %s", what, h.name, h.shards, waits[0])
		case i >= 0 && pipelines[i].Unowned > 0:
			d.warn(fmt.Sprintf("start a relay that runs it, or forget it: relay pipeline drop %s --yes", h.name),
				"%s: pipeline %s has not passed it (%d shards), and %d of its shards are published by nobody", what, h.name, h.shards, pipelines[i].Unowned)
		case i >= 0 && len(pipelines[i].Circuits) > 0:
			d.warn("mend the broker: relay status says which circuits are open", "%s: pipeline %s has not passed it (%d shards), and its broker or a topic of it is in trouble", what, h.name, h.shards)
		default:
			d.warn("look again in a minute: a relay with nothing to publish stores its position only when a slot waits for it", "%s: the stored position of pipeline %s has not passed it (%d shards)", what, h.name, h.shards)
		}
	}
	if len(holders) > 0 {
		return nil
	}
	lockers, err := d.open(ctx, slotSQL(sqlSlotLockers, s.n), d.cfg.Long.Milliseconds())
	if err != nil {
		return err
	}
	for _, t := range lockers {
		d.warn(t.Cure(), "%s: every pipeline has passed it, but this transaction has it open: %s", what, t)
	}
	if len(lockers) == 0 {
		d.warn("start a relay, or see in its log why retention failed; the retention here is the one of the configuration", "%s: every pipeline has passed it, and no relay truncates it", what)
	}
	return nil
}

// neededIndexes are those that statements of the relay and of its tools rest on.
var neededIndexes = []string{
	"event_id_slot_idx", "event_xid_id_idx", "position_pkey", "position_pipeline_n_idx", "lease_pkey",
	"parked_event_idx", "parked_lane_idx", "parked_due_idx", "parked_key_idx", "parked_discarded_idx",
}

const sqlLostIndexes = `SELECT coalesce(string_agg(n, ', '), '') FROM unnest($1::text[]) n WHERE NOT EXISTS (
  SELECT FROM pg_class c JOIN pg_index x ON x.indexrelid = c.oid
  WHERE c.relname = n AND c.relnamespace = '{s}'::regnamespace AND x.indisvalid AND x.indisready)`

func (d *diagnosis) indexes(ctx context.Context) (string, error) {
	var lost string
	if err := d.one(ctx, sqlLostIndexes, []any{neededIndexes}, &lost); err != nil {
		return "", err
	}
	if lost != "" {
		d.fail("create it again, CONCURRENTLY where the table is in use, as relay migrate sql prints it", "missing or not valid: %s", strings.TrimSpace(lost))
	}
	return "all are there and valid", nil
}
