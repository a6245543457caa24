package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrFilterChanged is what every [FilterError] wraps.
var ErrFilterChanged = errors.New("the pipeline's filter is not the one it runs with")

// FilterError says that a pipeline is registered in the database with another
// filter. A position counts events that the filter left out as passed: of two
// relays with different filters each would lose what only the other publishes.
type FilterError struct {
	Pipeline   string
	Stored     Filter // in the database
	Configured Filter // of this relay
}

// Error implements error and ends with the ways out.
func (e *FilterError) Error() string {
	return fmt.Sprintf("%v: pipeline %q publishes %s, configured is %s; give the pipeline a new name (start: {pipeline: %s} lets it go on from here),"+
		" or stop every relay that runs it and then: relay pipeline filter %s (in Go: relay.ChangeFilter)", ErrFilterChanged, e.Pipeline, e.Stored, e.Configured, e.Pipeline, e.Pipeline)
}

// Unwrap returns [ErrFilterChanged].
func (e *FilterError) Unwrap() error { return ErrFilterChanged }

const (
	sqlFilter = `SELECT filter FROM {s}.pipeline WHERE name = $1`
	// Asked for after this instance has joined, locked until that is certain: a
	// change waits, and then finds the instance.
	sqlFilterShare  = sqlFilter + ` FOR SHARE`
	sqlFilterLock   = sqlFilter + ` FOR UPDATE`
	sqlFilterRunner = `SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM {s}.instance i
WHERE ` + sqlLive + ` AND ($1 = ANY (pipelines) OR name IN (SELECT owner FROM {s}.lease WHERE pipeline = $1))`
	sqlFilterChange = `UPDATE {s}.pipeline SET filter = $2::jsonb WHERE name = $1`
)

// String says in words what is published.
func (f Filter) String() string {
	switch {
	case f.all():
		return "all events"
	case len(f.Types) == 0:
		return fmt.Sprintf("topics %q", f.Topics)
	case len(f.Topics) == 0:
		return fmt.Sprintf("types %q", f.Types)
	default:
		return fmt.Sprintf("topics %q of types %q", f.Topics, f.Types)
	}
}

// text is what is stored: equal for filters that choose the same.
func (f Filter) text() string {
	names := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	text, _ := json.Marshal(Filter{Topics: names(f.Topics), Types: names(f.Types)}) // of strings: cannot fail
	return string(text)
}

// known tells whether the pipeline is registered, and refuses another filter.
func (e *engine) known(ctx context.Context, q querier, query string) (bool, error) {
	stored, err := storedFilter(ctx, q, query, e.name)
	if errors.Is(err, ErrNoPipeline) {
		return false, nil
	}
	if err == nil && stored.text() != e.Filter.text() {
		err = &FilterError{Pipeline: e.name, Stored: stored, Configured: e.Filter}
	}
	return err == nil, err
}

func storedFilter(ctx context.Context, q querier, query, name string) (f Filter, err error) {
	var text []byte
	err = q.QueryRow(ctx, query, name).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return f, ErrNoPipeline
	}
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	return f, err
}

// checkFilters refuses before the others make room for this instance.
func (r *Relay) checkFilters(ctx context.Context) error {
	op, cancel := r.op(ctx)
	defer cancel()
	for _, e := range r.engines {
		if _, err := e.known(op, r.pool, r.q.filter); err != nil {
			return fmt.Errorf("check filters: %w", err)
		}
	}
	return nil
}

// ChangeFilter gives a registered pipeline another filter, from its position on:
// what the old one left out before is not published. It refuses with
// [ErrPipelineHeld] while a live relay runs the pipeline and with [ErrNoPipeline]
// if there is none. An empty schema means "outbox". The relay's grants are enough.
func ChangeFilter(ctx context.Context, pool *pgxpool.Pool, schema, name string, f Filter) error {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return err
	}
	if err := f.validate(""); err != nil {
		return err
	}
	in := func(query string) string { return inSchema(query, cfg.Schema) }
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := storedFilter(ctx, tx, in(sqlFilterLock), name); err != nil {
			return err
		}
		var runners string
		if err := tx.QueryRow(ctx, in(sqlFilterRunner), name).Scan(&runners); err != nil {
			return err
		}
		if runners != "" {
			return fmt.Errorf("%w (%s)", ErrPipelineHeld, runners)
		}
		_, err := tx.Exec(ctx, in(sqlFilterChange), name, f.text())
		return err
	})
	if err != nil {
		return fmt.Errorf("filter of pipeline %q: %w", name, notMigrated(err))
	}
	return nil
}
