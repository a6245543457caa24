package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// bigTable is from which size on reading a whole table for a page is a mistake.
const bigTable = 8 << 20

const (
	sqlPlanRange = `SELECT coalesce(pg_sequence_last_value('{s}.event_id_seq'), 0), pg_current_snapshot()::text`
	sqlBigTables = `SELECT coalesce(array_agg(c.relname::text), '{}') FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
WHERE h.inhparent = '{s}.event'::regclass AND pg_relation_size(c.oid) > $1::bigint`
)

// pagePlan asks how Postgres would read a page at the end of the log. It is asked for,
// not carried out.
func (d *diagnosis) pagePlan(ctx context.Context) (string, error) {
	var last int64
	var snapshot string
	if err := d.one(ctx, sqlPlanRange, nil, &last, &snapshot); err != nil {
		return "", err
	}
	var big []string
	if err := d.one(ctx, sqlBigTables, []any{bigTable}, &big); err != nil {
		return "", err
	}
	rows := defaultTuning().pageRows
	var text string
	// The simple protocol, because not every pooler and server takes parameters in an
	// EXPLAIN.
	if err := d.one(ctx, `EXPLAIN (FORMAT JSON) `+sqlFresh,
		[]any{pgx.QueryExecModeSimpleProtocol, snapshot, last, max(last-int64(rows), 0), nil, rows, defaultTuning().pageBytes}, &text); err != nil {
		return "", err
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		return "", fmt.Errorf("read the plan: %w", err)
	}
	var whole []string
	for _, p := range plans {
		p.Plan.each(func(n planNode) {
			if n.Type == "Seq Scan" && slices.Contains(big, n.Relation) {
				whole = append(whole, n.Relation)
			}
		})
	}
	if len(whole) > 0 {
		d.warn(fmt.Sprintf("ANALYZE %s.event; then see whether enable_indexscan or random_page_cost of the relay's role were changed, and whether its indexes are there", d.cfg.Schema),
			"Postgres would read all of %s for one page of events", strings.Join(whole, ", "))
	}
	return "a page is read through the index", nil
}

// planNode is a part of an EXPLAIN.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Plans    []planNode `json:"Plans"`
}

func (n planNode) each(f func(planNode)) {
	f(n)
	for _, p := range n.Plans {
		p.each(f)
	}
}
