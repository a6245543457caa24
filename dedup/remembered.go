package dedup

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Recollection is what a consumer remembers of a key.
type Recollection struct {
	Consumer   string `json:"consumer"`
	WindowDays int    `json:"window_days"` // as configured at its latest start
	// Handled: a transaction that claimed the key has committed.
	Handled bool `json:"handled"`
	// Forgotten: it is not remembered, and too old for that to mean anything.
	Forgotten bool `json:"forgotten,omitempty"`
}

const (
	rememberedConsumersSQL = `SELECT c.id, c.name, c.window_days::int, c.created_at, to_timestamp(r.forgotten), clock_timestamp()
FROM %[1]s.consumer c CROSS JOIN %[1]s.retention r ORDER BY c.name`
	rememberedTimedSQL   = `SELECT EXISTS (SELECT FROM %[1]s.seen_%[2]d WHERE event_key = $1::uuid AND consumer = $2::integer)`
	rememberedForeignSQL = `SELECT EXISTS (SELECT FROM %[1]s.seen_foreign WHERE event_key = $1::uuid AND consumer = $2::integer)`
)

// Remembered tells for each consumer of a database whether it has handled a key. It
// registers nobody and changes nothing, for whoever asks by hand. An empty schema
// means "inbox". The consumer's grants are enough.
func Remembered(ctx context.Context, pool *pgxpool.Pool, schema string, key Key) ([]Recollection, error) {
	cfg := Config{Schema: schema}.withDefaults()
	if !schemaName.MatchString(cfg.Schema) {
		return nil, fmt.Errorf("dedup: schema %q: must be lower-case letters, digits and underscores, at most 40, not starting with a digit", cfg.Schema)
	}
	list, err := remembered(ctx, pool, cfg.Schema, key)
	if err != nil {
		return nil, fmt.Errorf("dedup: look for a key in schema %s: %w", cfg.Schema, err)
	}
	return list, nil
}

func remembered(ctx context.Context, pool *pgxpool.Pool, schema string, key Key) ([]Recollection, error) {
	type consumer struct {
		Recollection
		id                      int32
		since, forgotten, clock time.Time
	}
	rows, err := pool.Query(ctx, fmt.Sprintf(rememberedConsumersSQL, schema))
	if err != nil {
		return nil, err
	}
	consumers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c consumer, err error) {
		err = row.Scan(&c.id, &c.Consumer, &c.WindowDays, &c.since, &c.forgotten, &c.clock)
		return c, err
	})
	if err != nil {
		return nil, err
	}
	list := []Recollection{}
	for _, c := range consumers {
		// Which sources a consumer trusts is not stored: it may be here or there.
		timed := key.stored(true, c.since.Add(-headStart))
		if timed.timed {
			query := fmt.Sprintf(rememberedTimedSQL, schema, timed.slot())
			if err := pool.QueryRow(ctx, query, pgtype.UUID{Bytes: timed.uuid, Valid: true}, c.id).Scan(&c.Handled); err != nil {
				return nil, err
			}
		}
		if !c.Handled {
			id := pgtype.UUID{Bytes: key.foreign().uuid, Valid: true}
			if err := pool.QueryRow(ctx, fmt.Sprintf(rememberedForeignSQL, schema), id, c.id).Scan(&c.Handled); err != nil {
				return nil, err
			}
		}
		window := time.Duration(c.WindowDays) * secondsPerDay * time.Second
		c.Forgotten = !c.Handled && timed.timed && (!timed.time.After(c.forgotten) || timed.time.Before(c.clock.Add(-window)))
		list = append(list, c.Recollection)
	}
	return list, nil
}
