package dedup

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Result is what became of a claim.
type Result int

const (
	stale Result = iota // nothing was claimed: the statement is of an older turn

	// Claimed: not handled before. The transaction holds the claim; when it
	// commits the key counts as handled.
	Claimed
	// Duplicate: a committed transaction has handled it, or this one claimed it
	// before.
	Duplicate
	// OutsideWindow: the id's time is older than the window, or more than an hour
	// ahead, by the database's clock, and nothing is remembered of it. Whether it
	// was handled before cannot be told: nothing was claimed, and somebody has to
	// decide. A new consumer has nothing to remember of ids from more than 12 hours
	// before its registration, so those are claimed however old they are.
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
// concurrent use. Somebody has to call Maintain now and then; an inbox does.
type Postgres struct {
	cfg      Config
	pool     *pgxpool.Pool
	consumer int32
	since    time.Time // ids from before count as foreign

	timed   [slots]timedStatements
	foreign atomic.Pointer[foreignStatements]
}

// headStart is how old an id may be, at the registration of its consumer, to be
// remembered by its own time.
const headStart = 12 * time.Hour

// NewPostgres registers the consumer in the database and returns its store.
func NewPostgres(ctx context.Context, pool *pgxpool.Pool, cfg Config) (*Postgres, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Postgres{cfg: cfg, pool: pool}
	for slot := range p.timed {
		p.timed[slot] = newTimedStatements(cfg.Schema, slot)
	}
	var turn int64
	err := pool.QueryRow(ctx, fmt.Sprintf(`INSERT INTO %[1]s.consumer AS c (name, window_days) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET window_days = excluded.window_days
		RETURNING id, created_at, (SELECT foreign_turn FROM %[1]s.retention)`, cfg.Schema),
		cfg.Consumer, cfg.WindowDays).Scan(&p.consumer, &p.since, &turn)
	if err != nil {
		return nil, fmt.Errorf("dedup: register consumer %q in schema %s (migrated and granted? see relay migrate): %w",
			cfg.Consumer, cfg.Schema, err)
	}
	p.since = p.since.Add(-headStart)
	p.turned(turn)
	return p, nil
}

// ConsumerID is the number that stands for the consumer in the tables.
func (p *Postgres) ConsumerID() int32 { return p.consumer }

// UUID returns what the tables call key.
func (p *Postgres) UUID(key Key) uuid.UUID { return p.stored(key).uuid }

func (p *Postgres) stored(key Key) eventKey { return key.stored(p.cfg.trusts(key.Source), p.since) }

// Queue adds the claim of one key to a batch of the caller's, which must run in
// a transaction. result is set when the batch's results have been read. Very
// rarely, when the process has not claimed for days, reading fails because the
// slots have moved on: the next transaction knows better.
func (p *Postgres) Queue(b *pgx.Batch, key Key, result *Result) {
	k := p.stored(key)
	if !k.timed {
		b.Queue(lockSQL, k.lock(p.consumer))
	}
	query, args, turn := p.statement(k)
	b.Queue(query, args...).QueryRow(func(row pgx.Row) error {
		var claimed bool
		var told int64
		if err := row.Scan(&claimed, &told); err != nil {
			return err
		}
		if *result = p.result(claimed, told, turn, k.timed); *result == stale {
			return errStale
		}
		return nil
	})
}

// statement returns the claim of a key, and the turn that it was made for if the
// key is foreign.
func (p *Postgres) statement(key eventKey) (query string, args []any, turn int64) {
	id := pgtype.UUID{Bytes: key.uuid, Valid: true} // pgx encodes uuid.UUID by way of its text
	if key.timed {
		return p.timed[key.slot()].claim, []any{p.consumer, id, key.time.Unix(), p.cfg.WindowDays * secondsPerDay}, 0
	}
	f := p.foreign.Load()
	return f.claim, []any{p.consumer, id}, f.turn
}

// result reads the answer of a claim: claimed, and 1 if it is or may be in the
// window; of a foreign key the turn that it is.
func (p *Postgres) result(claimed bool, told, turn int64, timed bool) Result {
	if !timed && p.stale(turn, told) {
		return stale
	}
	switch {
	case claimed:
		return Claimed
	case timed && told == 0:
		return OutsideWindow
	default:
		return Duplicate
	}
}
