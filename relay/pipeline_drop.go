package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	// ErrPipelineHeld says that a live relay publishes the pipeline.
	ErrPipelineHeld = errors.New("a live relay holds the pipeline; stop it, or take the pipeline out of its configuration")
	// ErrPipelineParked says that events of the pipeline are parked.
	ErrPipelineParked = errors.New("events of the pipeline are parked; redrive or discard them first")
	// ErrNoPipeline says that no pipeline of that name is registered.
	ErrNoPipeline = errors.New("no such pipeline is registered")
)

const (
	// Like a takeover: a flush under way ends first, a later one finds no lease.
	sqlDropLock = `SELECT count(*) FROM (SELECT FROM {s}.lease WHERE pipeline = $1 ORDER BY shard FOR UPDATE) l`
	sqlDropHeld = `SELECT coalesce(string_agg(DISTINCT l.owner, ', '), '') FROM {s}.lease l JOIN {s}.instance i ON i.name = l.owner
WHERE l.pipeline = $1 AND ` + sqlLive
	sqlDropParked    = `SELECT EXISTS (SELECT FROM {s}.parked WHERE pipeline = $1 AND state <> 'discarded')`
	sqlDropPositions = `DELETE FROM {s}.position WHERE pipeline = $1`
	sqlDropLeases    = `DELETE FROM {s}.lease WHERE pipeline = $1`
	sqlDropPipeline  = `DELETE FROM {s}.pipeline WHERE name = $1`
)

// DropOptions are for [DropPipeline].
type DropOptions struct {
	// Force drops a pipeline that a live relay holds, or that has parked events,
	// which are then gone. The relay stops publishing
	// it; started again with the pipeline in its configuration, it registers it
	// anew, from the oldest event unless Pipeline.Start says otherwise.
	Force bool
}

// DropPipeline forgets a pipeline and its positions: from now on it keeps no event
// from being truncated. Registered again under its name it starts anew. It refuses
// with [ErrPipelineHeld] while a live relay holds the pipeline, with
// [ErrPipelineParked] while it has parked events and with [ErrNoPipeline] if there
// is none. An empty schema means "outbox". The relay's
// grants are enough.
func DropPipeline(ctx context.Context, pool *pgxpool.Pool, schema, name string, opts DropOptions) error {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return err
	}
	in := func(query string) string { return inSchema(query, cfg.Schema) }
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, in(sqlDropLock), name); err != nil {
			return err
		}
		var holders string
		if err := tx.QueryRow(ctx, in(sqlDropHeld), name).Scan(&holders); err != nil {
			return err
		}
		if holders != "" && !opts.Force {
			return fmt.Errorf("%w (%s)", ErrPipelineHeld, holders)
		}
		var parked bool
		if err := tx.QueryRow(ctx, in(sqlDropParked), name).Scan(&parked); err != nil {
			return err
		}
		if parked && !opts.Force {
			return ErrPipelineParked
		}
		for _, statement := range []string{sqlDropPositions, sqlDropLeases} {
			if _, err := tx.Exec(ctx, in(statement), name); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, in(sqlDropPipeline), name)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrNoPipeline
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("drop pipeline %q: %w", name, notMigrated(err))
	}
	return nil
}

func inSchema(query, schema string) string { return strings.ReplaceAll(query, "{s}", schema) }
