package relay

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Outcome is what has become of a redrive's events so far.
type Outcome struct {
	Redriven  int64 `json:"redriven"`  // published, or taken up by a later redrive or discard
	Retrying  int64 `json:"retrying"`  // waits for the relay, or between two attempts
	Dead      int64 `json:"dead"`      // failed again
	Untouched int64 `json:"untouched"` // of the retrying ones, those that no relay has tried yet
}

const sqlOutcome = `SELECT a.events - o.waiting, o.retrying, o.dead, o.untouched
FROM {s}.parked_action a CROSS JOIN LATERAL (
  SELECT count(*) AS waiting, count(*) FILTER (WHERE state = 'retrying') AS retrying, count(*) FILTER (WHERE state = 'dead') AS dead,
    count(*) FILTER (WHERE state = 'retrying' AND attempts = 0 AND claim IS NULL) AS untouched
  FROM {s}.parked p WHERE p.action = a.n AND p.state <> 'discarded') o WHERE a.n = $1`

// RedriveOutcome tells what has become of a redrive; action is its number, see
// [ParkedProgress]. It is done when nothing is retrying any more.
func RedriveOutcome(ctx context.Context, pool *pgxpool.Pool, schema string, action int64) (Outcome, error) {
	var o Outcome
	schema, err := parkedSchema(schema, ParkedFilter{})
	if err != nil {
		return o, err
	}
	err = pool.QueryRow(ctx, inSchema(sqlOutcome, schema), action).Scan(&o.Redriven, &o.Retrying, &o.Dead, &o.Untouched)
	if err != nil {
		return o, fmt.Errorf("outcome of redrive %d: %w", action, notMigrated(err))
	}
	return o, nil
}
