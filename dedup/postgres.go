package dedup

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/sqltx"
)

// Result is what became of a claim.
type Result int

const (
	// Claimed: not handled before. The transaction holds the claim; when it
	// commits the key counts as handled.
	Claimed Result = iota + 1
	// Duplicate: a committed transaction has handled it, or this one claimed it
	// before.
	Duplicate
	// OutsideWindow: the id's time is older than the window, or more than an hour
	// ahead, by the database's clock. Whether it was handled before cannot be told:
	// nothing was claimed, and somebody has to decide.
	OutsideWindow
)

// String returns "claimed", "duplicate" or "outside window".
func (r Result) String() string {
	switch r {
	case Claimed:
		return "claimed"
	case Duplicate:
		return "duplicate"
	case OutsideWindow:
		return "outside window"
	}
	return fmt.Sprintf("Result(%d)", int(r))
}

// Postgres remembers in PostgreSQL what a consumer has handled. It is safe for
// concurrent use.
type Postgres struct {
	cfg      Config
	consumer int32

	timed   [slots]string // claim of a timed key, by slot
	foreign string
}

// NewPostgres registers the consumer in the database and returns its store.
func NewPostgres(ctx context.Context, pool *pgxpool.Pool, cfg Config) (*Postgres, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Postgres{cfg: cfg, foreign: fmt.Sprintf(foreignSQL, cfg.Schema, slots)}
	for slot := range p.timed {
		p.timed[slot] = fmt.Sprintf(timedSQL, cfg.Schema, slot)
	}
	err := pool.QueryRow(ctx, fmt.Sprintf(`INSERT INTO %[1]s.consumer AS c (name, window_days) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET window_days = excluded.window_days RETURNING id`, cfg.Schema),
		cfg.Consumer, cfg.WindowDays).Scan(&p.consumer)
	if err != nil {
		return nil, fmt.Errorf("dedup: register consumer %q in schema %s (migrated and granted? see relay migrate): %w",
			cfg.Consumer, cfg.Schema, err)
	}
	return p, nil
}

// Claims answer with one row: claimed, and whether the id's time is in the
// window. The leaf is addressed directly: routing through the parent costs more.
const (
	timedSQL = `WITH w AS (SELECT $3::bigint BETWEEN extract(epoch FROM now())::bigint - $4::bigint
    AND extract(epoch FROM now())::bigint + 3600 AS inside),
c AS (INSERT INTO %[1]s.seen_%[2]d (slot, consumer, event_key)
  SELECT %[2]d, $1::integer, $2::uuid FROM w WHERE inside ON CONFLICT DO NOTHING RETURNING 1)
SELECT EXISTS (SELECT FROM c), inside FROM w`

	// The look into all slots needs the lock: the primary key tells apart days of
	// receipt, and two deliveries may come on different ones. A statement of its
	// own, because a statement's snapshot is older than the lock it waits for.
	lockSQL    = `SELECT pg_advisory_xact_lock($1)`
	foreignSQL = `WITH c AS (INSERT INTO %[1]s.seen_foreign (slot, consumer, event_key)
  SELECT extract(epoch FROM now())::bigint / 86400 %% %[2]d, $1::integer, $2::uuid
  WHERE NOT EXISTS (SELECT FROM %[1]s.seen_foreign WHERE event_key = $2::uuid AND consumer = $1::integer)
  ON CONFLICT DO NOTHING RETURNING 1)
SELECT EXISTS (SELECT FROM c), true`
)

// ConsumerID is the number that stands for the consumer in the tables.
func (p *Postgres) ConsumerID() int32 { return p.consumer }

// UUID returns what the tables call key.
func (p *Postgres) UUID(key Key) uuid.UUID { return p.stored(key).uuid }

func (p *Postgres) stored(key Key) eventKey { return key.stored(p.cfg.trusts(key.Source)) }

// Claim claims keys in tx and returns one result a key, at the same index, in
// one round trip. It waits for other transactions that hold a claim on one of
// them. Keys are claimed in one order, whatever the order of the arguments, so
// that claims of several keys cannot deadlock among themselves; a transaction
// that calls Claim twice gives that up.
func (p *Postgres) Claim(ctx context.Context, tx pgx.Tx, keys ...Key) ([]Result, error) {
	results := make([]Result, len(keys))
	b := &pgx.Batch{}
	for _, c := range p.sorted(keys) {
		p.queue(b, c.key, &results[c.index])
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("dedup: claim: %w", err)
	}
	return results, nil
}

// ClaimSQL is [Postgres.Claim] for a *sql.Tx of pgx's database/sql driver, with
// a round trip or two for each key.
func (p *Postgres) ClaimSQL(ctx context.Context, tx *sql.Tx, keys ...Key) ([]Result, error) {
	results := make([]Result, len(keys))
	face := sqltx.SQL(tx)
	for _, c := range p.sorted(keys) {
		if !c.key.timed {
			if _, err := face.Exec(ctx, lockSQL, c.key.lock(p.consumer)); err != nil {
				return nil, fmt.Errorf("dedup: claim: %w", err)
			}
		}
		query, args := p.statement(c.key)
		var claimed, inside bool
		if err := face.QueryRow(ctx, query, args...).Scan(&claimed, &inside); err != nil {
			return nil, fmt.Errorf("dedup: claim: %w", err)
		}
		results[c.index] = result(claimed, inside)
	}
	return results, nil
}

// Queue adds the claim of one key to a batch of the caller's, which must run in
// a transaction. result is set when the batch's results have been read.
func (p *Postgres) Queue(b *pgx.Batch, key Key, result *Result) {
	p.queue(b, p.stored(key), result)
}

func (p *Postgres) queue(b *pgx.Batch, key eventKey, to *Result) {
	if !key.timed {
		b.Queue(lockSQL, key.lock(p.consumer))
	}
	query, args := p.statement(key)
	b.Queue(query, args...).QueryRow(func(row pgx.Row) error {
		var claimed, inside bool
		if err := row.Scan(&claimed, &inside); err != nil {
			return err
		}
		*to = result(claimed, inside)
		return nil
	})
}

func (p *Postgres) statement(key eventKey) (string, []any) {
	if key.timed {
		return p.timed[key.slot()], []any{p.consumer, key.uuid, key.time.Unix(), p.cfg.WindowDays * secondsPerDay}
	}
	return p.foreign, []any{p.consumer, key.uuid}
}

func result(claimed, inside bool) Result {
	switch {
	case claimed:
		return Claimed
	case inside:
		return Duplicate
	default:
		return OutsideWindow
	}
}

type claim struct {
	index int
	key   eventKey
}

func (p *Postgres) sorted(keys []Key) []claim {
	claims := make([]claim, len(keys))
	for i, k := range keys {
		claims[i] = claim{index: i, key: p.stored(k)}
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(bytes.Compare(a.key.uuid[:], b.key.uuid[:]), cmp.Compare(a.index, b.index))
	})
	return claims
}
