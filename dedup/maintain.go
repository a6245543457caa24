package dedup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// Maintain forgets what lies two days past the widest window of all consumers in
// the schema: it truncates slots, one at a time, and never waits for a lock, so
// claims do not wait for it; what is locked now is done by a later call. It
// returns how many slots it emptied. Call it every ten minutes or so; an inbox
// does by itself. Any number of processes may call it at once.
//
// The role needs EXECUTE on three functions of the schema; see the grants. They
// check in the database what is due.
func (p *Postgres) Maintain(ctx context.Context) (emptied int, err error) {
	for _, function := range []string{"forget_seen", "forget_foreign"} {
		query := fmt.Sprintf(`SELECT %s.%s($1)`, p.cfg.Schema, function)
		for slot := range slots {
			var done bool
			if err := p.pool.QueryRow(ctx, query, slot).Scan(&done); err != nil {
				return emptied, p.maintainError(err)
			}
			if done {
				emptied++
			}
		}
	}
	// Last: until the next call, claimers have noticed a turn, and let go of the
	// slot that it made old.
	var turn int64
	if err := p.pool.QueryRow(ctx, fmt.Sprintf(`SELECT %s.turn_foreign()`, p.cfg.Schema)).Scan(&turn); err != nil {
		return emptied, p.maintainError(err)
	}
	p.turned(turn)
	return emptied, nil
}

func (p *Postgres) maintainError(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" { // insufficient privilege
		return fmt.Errorf("dedup: the role may not empty old slots of schema %s, so they grow (grant what relay migrate sql inbox prints, or call Maintain from a role that may): %w",
			p.cfg.Schema, err)
	}
	return fmt.Errorf("dedup: empty old slots of schema %s: %w", p.cfg.Schema, err)
}
