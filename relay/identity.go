package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outboxkit/outboxkit/internal/planted"
)

// token names the time between two recoveries of the database. The table that
// holds it is UNLOGGED: a crash or a promotion empties it, a clean restart does
// not.
type token = pgtype.UUID

// same tells whether nothing was forgotten since want was read. A missing token
// is never the same.
func same(got, want token) bool {
	if planted.Is(planted.NoIncarnationCheck) {
		return true
	}
	return got.Valid && want.Valid && got.Bytes == want.Bytes
}

// incarnation returns the current token and writes one if there is none.
func (r *Relay) incarnation(ctx context.Context) (token, error) {
	var tok token
	op, cancel := r.op(ctx)
	defer cancel()
	for range 3 {
		err := r.pool.QueryRow(op, r.q.token).Scan(&tok)
		if err == nil {
			return tok, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return tok, fmt.Errorf("read incarnation: %w", err)
		}
		if _, err := r.pool.Exec(op, r.q.newToken); err != nil {
			return tok, fmt.Errorf("write incarnation: %w", err)
		}
	}
	return tok, errIncarnation
}

// identify refuses a log whose transaction ids are not this cluster's.
func (r *Relay) identify(ctx context.Context) error {
	op, cancel := r.op(ctx)
	defer cancel()
	var shards int
	var ourSys, sys, ourDB, db int64
	err := r.pool.QueryRow(op, r.q.identity).Scan(&shards, &ourSys, &sys, &ourDB, &db)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w (%s.meta is empty)", ErrForeignCluster, r.cfg.Schema)
	}
	if err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	if shards != shardCount {
		return fmt.Errorf("%w (%d shards, this version needs %d)", ErrNotMigrated, shards, shardCount)
	}
	if ourSys != sys || ourDB != db {
		return fmt.Errorf("%w (made in system %d database %d, found in system %d database %d)", ErrForeignCluster, ourSys, ourDB, sys, db)
	}
	var ahead bool
	if err := r.pool.QueryRow(op, r.q.ahead).Scan(&ahead); err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	if ahead {
		return fmt.Errorf("%w (stored transaction ids lie ahead of the cluster's)", ErrForeignCluster)
	}
	return nil
}
