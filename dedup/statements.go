package dedup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Claims answer with one row. The leaf is addressed directly: routing through the
// parent costs more, and would wait for a slot that is being emptied.
const (
	// Claimed, and whether the answer counts: the id's time is in the window, and
	// nothing so late has been forgotten; or it is known all the same. The clock
	// is the statement's: the transaction's may be days old. A claim that waits
	// for the leaf while it is emptied reads what has been forgotten afterwards.
	timedSQL = `WITH w AS (SELECT $3::bigint > forgotten
    AND $3::bigint BETWEEN extract(epoch FROM statement_timestamp())::bigint - $4::bigint
      AND extract(epoch FROM statement_timestamp())::bigint + 3600 AS inside FROM %[1]s.retention),
c AS (INSERT INTO %[1]s.seen_%[2]d (slot, consumer, event_key)
  SELECT %[2]d, $1::integer, $2::uuid FROM w WHERE inside ON CONFLICT DO NOTHING RETURNING 1)
SELECT EXISTS (SELECT FROM c),
  (inside OR EXISTS (SELECT FROM %[1]s.seen_%[2]d WHERE event_key = $2::uuid AND consumer = $1::integer))::integer::bigint FROM w`

	// The look into several slots needs the lock: the primary key tells apart days
	// of receipt, and two deliveries may come on different ones. A statement of its
	// own, because a statement's snapshot is older than the lock it waits for.
	lockSQL = `SELECT pg_advisory_xact_lock($1)`

	// Claimed, and the turn that it is.
	foreignSQL = `WITH w AS (SELECT foreign_turn AS turn FROM %[1]s.retention),
c AS (INSERT INTO %[1]s.seen_foreign (slot, consumer, event_key)
  SELECT turn %% %[2]d, $1::integer, $2::uuid FROM w
  WHERE turn BETWEEN %[3]d AND %[3]d + 1
    AND NOT EXISTS (SELECT FROM %[1]s.seen_foreign WHERE slot = ANY (%[4]s) AND event_key = $2::uuid AND consumer = $1::integer)
  ON CONFLICT DO NOTHING RETURNING 1)
SELECT EXISTS (SELECT FROM c), turn FROM w`

	// The turn that it is, whether the key is remembered, and with what.
	responseSQL = `SELECT r.foreign_turn, s.event_key IS NOT NULL, s.response FROM %[1]s.retention r
LEFT JOIN %[1]s.seen_foreign s ON s.slot = ANY (%[4]s) AND s.event_key = $2::uuid AND s.consumer = $1::integer LIMIT 1`
)

// foreignStatements are made for one turn: they name the slots that the window
// reaches, so that they neither look into nor lock those that may be emptied.
type foreignStatements struct {
	turn                             int64
	claim, claimMany, look, response string
}

// timedStatements are for the keys of one slot.
type timedStatements struct{ claim, claimMany, look string }

func newTimedStatements(schema string, slot int) timedStatements {
	return timedStatements{
		claim:     fmt.Sprintf(timedSQL, schema, slot),
		claimMany: fmt.Sprintf(manyTimedSQL, schema, slot),
		look:      fmt.Sprintf(lookTimedSQL, schema, slot),
	}
}

// reach is the number of slots that hold what was received within the window: a
// turn takes a day at least, unless the database's clock was set ahead, which
// costs one; and slots are emptied only beyond it.
func (c Config) reach() int64 { return int64(c.WindowDays) + 2 }

func newForeignStatements(cfg Config, turn int64) *foreignStatements {
	// The next slot too: others may know that it is the current one by now.
	var live []string
	for n := turn - cfg.reach(); n <= turn+1; n++ {
		live = append(live, strconv.FormatInt((n+slots)%slots, 10))
	}
	list := "'{" + strings.Join(live, ",") + "}'::smallint[]"
	return &foreignStatements{
		turn:      turn,
		claim:     fmt.Sprintf(foreignSQL, cfg.Schema, slots, turn, list),
		claimMany: fmt.Sprintf(manyForeignSQL, cfg.Schema, slots, turn, list),
		look:      fmt.Sprintf(lookForeignSQL, cfg.Schema, slots, turn, list),
		response:  fmt.Sprintf(responseSQL, cfg.Schema, slots, turn, list),
	}
}

// turned notes the turn that the database has told.
func (p *Postgres) turned(turn int64) {
	if f := p.foreign.Load(); f == nil || f.turn != turn {
		p.foreign.Store(newForeignStatements(p.cfg, turn))
	}
}

// stale reports whether statements of a turn did not look where they should
// have, and learns from what the database told.
func (p *Postgres) stale(turn, told int64) bool {
	p.turned(told)
	return told != turn && told != turn+1
}

// claimRounds bounds how often a claim is made again because it was stale. Turns
// are a day apart: once is enough.
const claimRounds = 3

var errStale = errors.New("dedup: the slots have moved on since this process claimed last: try again")
