package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
)

// Outbox writes events. It is safe for concurrent use and holds no connection.
type Outbox struct {
	cfg     Config
	types   map[typeKey]int64 // the schema's fingerprint
	sql     statements
	keyLock bool
}

// typeKey tells versions of one type apart: services write two of them side by
// side while consumers move from one to the next.
type typeKey struct {
	name   string
	schema event.Schema
}

// ErrNotMigrated says that the outbox tables are missing.
var ErrNotMigrated = errors.New("outbox tables are missing: run `relay migrate up`, or migrate.Outbox(schema).Up")

// New checks the configuration and stores the types' schemas in the database, so
// that relays and tools can read the events. It is called once, at the start.
func New(ctx context.Context, pool *pgxpool.Pool, cfg Config) (*Outbox, error) {
	if pool == nil {
		return nil, &event.FieldError{Field: "pool", Problem: "is nil"}
	}
	return newOutbox(ctx, cfg, store{
		exec: func(query string, args ...any) error {
			_, err := pool.Exec(ctx, query, args...)
			return err
		},
		ask: func(query string, arg any) (yes bool, err error) {
			return yes, pool.QueryRow(ctx, query, arg).Scan(&yes)
		},
	})
}

// NewSQL is [New] for services that use database/sql, with any Postgres driver.
func NewSQL(ctx context.Context, db *sql.DB, cfg Config) (*Outbox, error) {
	if db == nil {
		return nil, &event.FieldError{Field: "db", Problem: "is nil"}
	}
	return newOutbox(ctx, cfg, store{
		exec: func(query string, args ...any) error {
			_, err := db.ExecContext(ctx, query, args...)
			return err
		},
		ask: func(query string, arg any) (yes bool, err error) {
			return yes, db.QueryRowContext(ctx, query, arg).Scan(&yes)
		},
	})
}

// store is the database while New runs.
type store struct {
	exec func(query string, args ...any) error
	ask  func(query string, arg any) (bool, error)
}

func newOutbox(ctx context.Context, cfg Config, db store) (*Outbox, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	o := &Outbox{cfg: cfg, types: map[typeKey]int64{}, sql: newStatements(cfg.Schema)}
	for _, t := range cfg.Types {
		i := t.Info()
		o.types[typeKey{i.Name, i.Codec.Schema()}] = i.Codec.Schema().Fingerprint()
	}
	if err := o.passGate(ctx, db); err != nil {
		return nil, err
	}
	for _, t := range cfg.Types {
		i := t.Info()
		s := i.Codec.Schema()
		if s.IsZero() {
			continue
		}
		if err := db.exec(o.sql.storeSchema, s.Fingerprint(), s.Format, s.Text, s.ContentType); err != nil {
			return nil, fmt.Errorf("outbox: store the schema of %s: %w", i.Name, explain(err))
		}
	}
	return o, nil
}

// passGate asks about all types before the first schema is stored: what is stored
// counts as passed. So a registry that is away stops no service but one with a
// schema that was never seen.
func (o *Outbox) passGate(ctx context.Context, db store) error {
	if o.cfg.Gate == nil {
		return nil
	}
	var refused []error
	for _, t := range o.cfg.Types {
		i := t.Info()
		passed, err := db.ask(o.sql.hasSchema, i.Codec.Schema().Fingerprint())
		if err != nil {
			return fmt.Errorf("outbox: look for the schema of %s: %w", i.Name, explain(err))
		}
		if passed {
			continue
		}
		if err := o.cfg.Gate(ctx, i); err != nil {
			refused = append(refused, fmt.Errorf("outbox: the schema of %s may not be written: %w", i.Name, err))
		}
	}
	return errors.Join(refused...)
}

// WithKeyLock returns an Outbox that takes the lock of each event's key before
// it writes the event, and holds it until the transaction ends. Use it where the
// transaction does not lock the aggregate's row first (see the package comment).
// Transactions that write the same key then run one after the other; keys of one
// Write call are locked in sorted order, so that two calls cannot deadlock.
func (o *Outbox) WithKeyLock() *Outbox {
	c := *o
	c.keyLock = true
	return &c
}

// Write adds events to the transaction, in this order, in one round trip. It
// talks to nobody but this transaction's connection. A bad event is refused
// before the database sees any: the error is a *[event.FieldError] that names
// the field. After an error from the database the transaction must be rolled
// back, as after any failed statement.
func (o *Outbox) Write(ctx context.Context, tx pgx.Tx, drafts ...event.Draft) error {
	rows, err := o.rows(ctx, drafts)
	if err != nil || len(rows) == 0 {
		return err
	}
	query, args := o.pgxStatement(rows)
	if _, err := tx.Exec(ctx, query, args...); err != nil {
		return fmt.Errorf("outbox: write: %w", explain(err))
	}
	return nil
}

// WriteSQL is [Outbox.Write] for database/sql, and for the libraries that hand
// over their *sql.Tx: GORM, ent, bun, sqlc.
func (o *Outbox) WriteSQL(ctx context.Context, tx *sql.Tx, drafts ...event.Draft) error {
	rows, err := o.rows(ctx, drafts)
	if err != nil {
		return err
	}
	for len(rows) > 0 {
		n := min(len(rows), maxValuesRows)
		query, args := o.sqlStatement(rows[:n])
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("outbox: write: %w", explain(err))
		}
		rows = rows[n:]
	}
	return nil
}

// explain turns "relation does not exist" into what to do about it.
func explain(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000") {
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	}
	return err
}
