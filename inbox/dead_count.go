package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DeadCounted is up to how many dead letters of a consumer are counted.
const DeadCounted = 100_000

// DeadCount counts a consumer's dead letters that wait, up to [DeadCounted].
type DeadCount struct {
	Consumer string `json:"consumer"`
	Dead     int64  `json:"dead"`     // wait for a person; those with a copy at the broker too
	Blocked  int64  `json:"blocked"`  // wait behind an earlier event of their key
	Retrying int64  `json:"retrying"` // redriven, and not handled yet
	// Exact is false if there are more than were counted.
	Exact bool `json:"exact"`
	// OldestSeconds is the time since the first of those counted was stored, 0 if
	// none is.
	OldestSeconds float64 `json:"oldest_seconds"`
}

const countDeadSQL = `SELECT c.name, count(*) FILTER (WHERE d.state IN ('dead', 'moving', 'moved')),
  count(*) FILTER (WHERE d.state = 'blocked'), count(*) FILTER (WHERE d.state = 'retrying'),
  count(d.state) < $1::bigint, coalesce(extract(epoch FROM clock_timestamp() - min(d.created_at)), 0)::float8
FROM {s}.consumer c LEFT JOIN LATERAL (
  SELECT state, created_at FROM {s}.dead WHERE consumer = c.id AND ` + unresolved + ` LIMIT $1::bigint) d ON true
GROUP BY c.name ORDER BY c.name`

// CountDeadLetters counts the dead letters that wait, for each consumer that has
// run on the database, by name. An empty schema means "inbox". The consumer's
// grants are enough, and no inbox needs to run.
func CountDeadLetters(ctx context.Context, pool *pgxpool.Pool, schema string) ([]DeadCount, error) {
	l, err := openLetters(pool, schema)
	if err != nil {
		return nil, err
	}
	rows, err := l.pool.Query(ctx, l.in(countDeadSQL), DeadCounted)
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", notMigrated(err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c DeadCount, err error) {
		err = row.Scan(&c.Consumer, &c.Dead, &c.Blocked, &c.Retrying, &c.Exact, &c.OldestSeconds)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", notMigrated(err))
	}
	return list, nil
}
