package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Outcome is what has become of a redrive's events so far, those included that
// followed behind a redriven one of their key.
type Outcome struct {
	Redriven  int64 `json:"redriven"`  // handled
	Retrying  int64 `json:"retrying"`  // not taken yet, being handled, or between two attempts
	Blocked   int64 `json:"blocked"`   // chosen, but behind another of their key
	Dead      int64 `json:"dead"`      // failed again
	Discarded int64 `json:"discarded"` // given up since
	// Untouched are the types of some of the retrying ones that no inbox has tried
	// yet: none of the consumer is running, or none has a handler for them.
	Untouched []string `json:"untouched,omitempty"`
}

const (
	outcomeSQL = `SELECT count(*) FILTER (WHERE state = 'redriven'), count(*) FILTER (WHERE state = 'retrying'),
	count(*) FILTER (WHERE state = 'blocked'), count(*) FILTER (WHERE state IN ('dead', 'moving', 'moved')),
	count(*) FILTER (WHERE state = 'discarded')
FROM {s}.dead WHERE action = $1`
	untouchedSQL = `SELECT coalesce(array_agg(DISTINCT u.type), '{}') FROM (SELECT type FROM {s}.dead
	WHERE action = $1 AND state = 'retrying' AND attempts = earlier_attempts LIMIT 1000) u`
)

// RedriveOutcome tells what has become of a redrive; action is its number, see
// [DeadProgress]. It is done when nothing is retrying any more.
func RedriveOutcome(ctx context.Context, pool *pgxpool.Pool, schema string, action int64) (Outcome, error) {
	var o Outcome
	l, err := openLetters(pool, schema)
	if err != nil {
		return o, err
	}
	err = pool.QueryRow(ctx, l.in(outcomeSQL), action).Scan(&o.Redriven, &o.Retrying, &o.Blocked, &o.Dead, &o.Discarded)
	if err == nil && o.Retrying > 0 {
		err = pool.QueryRow(ctx, l.in(untouchedSQL), action).Scan(&o.Untouched)
	}
	if err != nil {
		return o, fmt.Errorf("outcome of redrive %d: %w", action, notMigrated(err))
	}
	return o, nil
}
