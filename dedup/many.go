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
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outboxkit/outboxkit/internal/sqltx"
)

// Several claims are one statement for each slot, and one for all foreign keys.
// unnest keeps the order of the array, which is the order of locking.
const (
	// What was claimed, 16 bytes a key; what is remembered of keys outside the
	// window; and what tells which those are. Sub-selects that must not become
	// joins: how many rows there will be is not known when this is planned.
	manyTimedSQL = `WITH w AS (SELECT forgotten, extract(epoch FROM statement_timestamp())::bigint AS now FROM %[1]s.retention),
c AS (INSERT INTO %[1]s.seen_%[2]d (slot, consumer, event_key)
  SELECT %[2]d, $1::integer, k FROM unnest($2::uuid[], $3::bigint[]) u (k, at)
  WHERE at > (SELECT forgotten FROM w) AND at BETWEEN (SELECT now - $4::bigint FROM w) AND (SELECT now + 3600 FROM w)
  ON CONFLICT DO NOTHING RETURNING event_key)
SELECT (SELECT string_agg(uuid_send(event_key), '') FROM c),
  (SELECT string_agg(uuid_send(k), '') FROM unnest($2::uuid[], $3::bigint[]) u (k, at)
   WHERE NOT (at > forgotten AND at BETWEEN now - $4::bigint AND now + 3600)
     AND EXISTS (SELECT FROM %[1]s.seen_%[2]d WHERE event_key = k AND consumer = $1::integer OFFSET 0)),
  forgotten, now FROM w`

	lookTimedSQL = `SELECT string_agg(uuid_send(event_key), '') FROM %[1]s.seen_%[2]d
WHERE event_key = ANY ($2::uuid[]) AND consumer = $1::integer`

	manyLocksSQL = `SELECT pg_advisory_xact_lock(l) FROM unnest($1::bigint[]) l`

	// What was claimed, and the turn that it is.
	manyForeignSQL = `WITH w AS (SELECT foreign_turn AS turn FROM %[1]s.retention),
c AS (INSERT INTO %[1]s.seen_foreign (slot, consumer, event_key)
  SELECT (SELECT turn FROM w) %% %[2]d, $1::integer, k FROM unnest($2::uuid[]) k
  WHERE (SELECT turn FROM w) BETWEEN %[3]d AND %[3]d + 1
    AND NOT EXISTS (SELECT FROM %[1]s.seen_foreign WHERE slot = ANY (%[4]s) AND event_key = k AND consumer = $1::integer OFFSET 0)
  ON CONFLICT DO NOTHING RETURNING event_key)
SELECT (SELECT string_agg(uuid_send(event_key), '') FROM c), turn FROM w`

	lookForeignSQL = `SELECT string_agg(uuid_send(event_key), '') FROM %[1]s.seen_foreign
WHERE slot = ANY (%[4]s) AND event_key = ANY ($2::uuid[]) AND consumer = $1::integer`
)

// Claim claims keys in tx and returns one result a key, at the same index, in
// one round trip. It waits for other transactions that hold a claim on one of
// them. Keys are claimed in one order, whatever the order of the arguments, so
// that claims of several keys cannot deadlock among themselves; a transaction
// that calls Claim twice gives that up.
func (p *Postgres) Claim(ctx context.Context, tx pgx.Tx, keys ...Key) ([]Result, error) {
	results := make([]Result, len(keys))
	left := p.parts(keys)
	for range claimRounds {
		b := &pgx.Batch{}
		for _, c := range left {
			p.queue(b, c, results)
		}
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return nil, fmt.Errorf("dedup: claim: %w", err)
		}
		left = slices.DeleteFunc(left, func(c part) bool { return results[c[0].index] != stale })
		if len(left) == 0 {
			return results, nil
		}
	}
	return nil, errStale
}

// ClaimSQL is [Postgres.Claim] for a *sql.Tx of pgx's database/sql driver, with
// a round trip or two for foreign keys and for each day that the others are of.
func (p *Postgres) ClaimSQL(ctx context.Context, tx *sql.Tx, keys ...Key) ([]Result, error) {
	results := make([]Result, len(keys))
	for _, c := range p.parts(keys) {
		for round := 0; results[c[0].index] == stale; round++ {
			if round == claimRounds {
				return nil, errStale
			}
			if err := p.claimSQL(ctx, sqltx.SQL(tx), c, results); err != nil {
				return nil, fmt.Errorf("dedup: claim: %w", err)
			}
		}
	}
	return results, nil
}

func (p *Postgres) claimSQL(ctx context.Context, tx sqltx.Tx, c part, results []Result) error {
	if !c.timed() {
		if _, err := tx.Exec(ctx, manyLocksSQL, c.locks(p.consumer)); err != nil {
			return err
		}
	}
	query, args, turn := p.claimMany(c)
	return p.scan(tx.QueryRow(ctx, query, args...), c, turn, results)
}

// QueueAll is [Postgres.Queue] for several keys: results, as long as keys, is set
// when the batch's results have been read. They are claimed as by
// [Postgres.Claim], a statement or two for each day.
func (p *Postgres) QueueAll(b *pgx.Batch, keys []Key, results []Result) {
	for _, c := range p.parts(keys) {
		last := p.queue(b, c, results)
		read := last.Fn
		last.Fn = func(br pgx.BatchResults) error {
			if err := read(br); err != nil {
				return err
			}
			if results[c[0].index] == stale {
				return errStale
			}
			return nil
		}
	}
}

func (p *Postgres) queue(b *pgx.Batch, c part, results []Result) *pgx.QueuedQuery {
	if !c.timed() {
		b.Queue(manyLocksSQL, c.locks(p.consumer))
	}
	query, args, turn := p.claimMany(c)
	q := b.Queue(query, args...)
	q.QueryRow(func(row pgx.Row) error { return p.scan(row, c, turn, results) })
	return q
}

// Querier is a pool, a connection or a transaction of pgx.
type Querier interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Seen reports, one answer a key at the same index, in one round trip, which
// keys have been claimed by transactions that db sees. It neither claims nor
// waits: true is final if db is no transaction, false may no longer be so when it
// is read, and only [Postgres.Claim] tells. It is for what is probably a
// duplicate, and cheaper there than a transaction.
func (p *Postgres) Seen(ctx context.Context, db Querier, keys ...Key) ([]bool, error) {
	seen := make([]bool, len(keys))
	b := &pgx.Batch{}
	for _, c := range p.parts(keys) {
		query := p.foreign.Load().look
		if c.timed() {
			query = p.timed[c[0].key.slot()].look
		}
		b.Queue(query, p.consumer, c.uuids()).QueryRow(func(row pgx.Row) error {
			var found []byte
			if err := row.Scan(&found); err != nil {
				return err
			}
			known := uuids(found)
			for i := range c {
				_, seen[c[i].index] = known[c[i].key.uuid]
			}
			return nil
		})
	}
	if err := db.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("dedup: look up: %w", err)
	}
	return seen, nil
}

// part is keys that one statement claims, in the order of claims: those of one
// slot, or foreign ones.
type part []claim

type claim struct {
	index int // among the caller's keys
	key   eventKey
}

// parts sorts and divides keys. A timed key begins with its time, so the slots
// are in order of the keys too; foreign keys come last.
func (p *Postgres) parts(keys []Key) []part {
	all := make(part, len(keys))
	for i, k := range keys {
		all[i] = claim{index: i, key: p.stored(k)}
	}
	slices.SortFunc(all, func(a, b claim) int {
		switch {
		case a.key.timed && !b.key.timed:
			return -1
		case !a.key.timed && b.key.timed:
			return 1
		}
		return cmp.Or(bytes.Compare(a.key.uuid[:], b.key.uuid[:]), cmp.Compare(a.index, b.index))
	})
	var parts []part
	from := 0
	for i := 1; i <= len(all); i++ {
		if i == len(all) || all[i].key.timed != all[from].key.timed || all[i].key.timed && all[i].key.slot() != all[from].key.slot() {
			parts = append(parts, all[from:i:i])
			from = i
		}
	}
	return parts
}

func (c part) timed() bool { return c[0].key.timed }

// locks are the advisory locks of foreign keys.
func (c part) locks(consumer int32) []int64 {
	locks := make([]int64, len(c))
	for i := range c {
		locks[i] = c[i].key.lock(consumer)
	}
	return locks
}

// uuids is what pgx encodes without looking at each element's type.
func (c part) uuids() pgtype.FlatArray[pgtype.UUID] {
	list := make(pgtype.FlatArray[pgtype.UUID], len(c))
	for i := range c {
		list[i] = pgtype.UUID{Bytes: c[i].key.uuid, Valid: true}
	}
	return list
}

// claimMany returns the claim of c, and the turn that it was made for if its keys
// are foreign.
func (p *Postgres) claimMany(c part) (query string, args []any, turn int64) {
	if !c.timed() {
		f := p.foreign.Load()
		return f.claimMany, []any{p.consumer, c.uuids()}, f.turn
	}
	at := make([]int64, len(c))
	for i := range c {
		at[i] = c[i].key.time.Unix()
	}
	return p.timed[c[0].key.slot()].claimMany, []any{p.consumer, c.uuids(), at, p.cfg.WindowDays * secondsPerDay}, 0
}

// scan reads the answer to a claim.
func (p *Postgres) scan(row interface{ Scan(dest ...any) error }, c part, turn int64, results []Result) error {
	var claimed, known []byte
	var told, now int64 // the turn, or up to when all is forgotten
	to := []any{&claimed, &told}
	if c.timed() {
		to = []any{&claimed, &known, &told, &now}
	}
	if err := row.Scan(to...); err != nil {
		return err
	}
	if !c.timed() && p.stale(turn, told) {
		return nil // results stay stale
	}
	if len(claimed) == len(c)*len(uuid.UUID{}) { // as nearly always: every one of them, and no two the same
		for i := range c {
			results[c[i].index] = Claimed
		}
		return nil
	}
	mine, others := uuids(claimed), uuids(known)
	for i := range c {
		key := c[i].key
		at := key.time.Unix()
		_, first := mine[key.uuid]
		_, remembered := others[key.uuid]
		delete(mine, key.uuid) // the next of the same key is a duplicate
		switch {
		case first:
			results[c[i].index] = Claimed
		case c.timed() && !remembered && (at <= told || at < now-int64(p.cfg.WindowDays)*secondsPerDay || at > now+secondsAhead):
			results[c[i].index] = OutsideWindow
		default:
			results[c[i].index] = Duplicate
		}
	}
	return nil
}

// uuids is the set of the 16-byte pieces of list.
func uuids(list []byte) map[uuid.UUID]struct{} {
	set := make(map[uuid.UUID]struct{}, len(list)/16)
	for piece := range slices.Chunk(list, 16) {
		set[uuid.UUID(piece)] = struct{}{}
	}
	return set
}
