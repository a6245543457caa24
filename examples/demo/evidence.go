package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/examples/demo/verdict"
	"github.com/outboxkit/outboxkit/internal/history"
)

// evidence reads what the run has left in the databases, with plain SQL.
func (s *scenario) evidence(ctx context.Context) (verdict.Evidence, error) {
	e := verdict.Evidence{Written: s.written, Poison: s.poison, PlacedWithoutRelay: s.placedWithoutRelay}
	err := s.stage.orders.QueryRow(ctx, `SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint
		FROM pg_stat_user_tables WHERE schemaname = 'outbox' AND relname LIKE 'event\_%'`).Scan(&e.RowsChanged)
	if err != nil {
		return e, err
	}
	for _, c := range s.consumers {
		found, err := c.evidence(ctx)
		if err != nil {
			return e, fmt.Errorf("read what %s did: %w", c.name, err)
		}
		e.Services = append(e.Services, found)
	}
	return e, nil
}

func (c *consumer) evidence(ctx context.Context) (verdict.Service, error) {
	v := verdict.Service{Name: c.name}
	var err error
	if v.Effects, err = c.effectsAfter(ctx, 0); err != nil {
		return v, err
	}
	rows, err := c.pool.Query(ctx, "SELECT id, state FROM inbox.dead")
	if err != nil {
		return v, err
	}
	v.Dead, err = pgx.CollectRows(rows, pgx.RowToStructByPos[verdict.Dead])
	return v, err
}

// effectsAfter returns the consumer's effects, the oldest first, from a place on.
func (c *consumer) effectsAfter(ctx context.Context, seq int64) ([]history.Effect, error) {
	rows, err := c.pool.Query(ctx, "SELECT user_id, order_id, n FROM "+c.table+" WHERE n > $1 ORDER BY n", seq)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[history.Effect])
}
