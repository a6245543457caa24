package outbox

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	columns    = "event_id, topic, key, type, source, time, correlation_id, causation_id, headers, payload, schema_fp"
	numColumns = 11
	// maxValuesRows keeps a multi-row INSERT below Postgres' 65,535 parameters.
	maxValuesRows = 1000
)

// casts make every driver send what the column needs: a driver that sends text
// for everything works as well as one that sends binary.
var casts = [numColumns]string{"uuid", "text", "text", "text", "text", "timestamptz", "text", "text", "jsonb", "bytea", "bigint"}

type statements struct {
	storeSchema string
	hasSchema   string
	table       string
	one         string // one row by scalars
	oneLocked   string
	many        string // rows by arrays, pgx only
	manyLocked  string
}

func newStatements(schema string) statements {
	table := schema + ".event"
	insert := "INSERT INTO " + table + " (" + columns + ") "
	one := placeholders(1)
	unnest := "unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $6::timestamptz[], $7::text[], $8::text[], $9::text[], $10::bytea[], $11::bigint[])" +
		" WITH ORDINALITY e(event_id, topic, key, type, time, correlation_id, causation_id, headers, payload, schema_fp, n)"
	fields := "e.event_id, e.topic, e.key, e.type, $5::text, e.time, e.correlation_id, e.causation_id, e.headers::jsonb, e.payload, e.schema_fp"
	return statements{
		storeSchema: "INSERT INTO " + schema + ".schema (fp, format, text, content_type) VALUES ($1, $2, $3, $4) ON CONFLICT (fp) DO NOTHING",
		hasSchema:   "SELECT EXISTS (SELECT FROM " + schema + ".schema WHERE fp = $1)",
		table:       table,
		one:         insert + "VALUES (" + one + ")",
		// The id must be drawn after the lock: hence MATERIALIZED, and the INSERT
		// selects from the locks.
		oneLocked: "WITH l AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended($3::text, 0))) " +
			insert + "SELECT " + one + " FROM l",
		many: insert + "SELECT " + fields + " FROM " + unnest + " ORDER BY e.n",
		manyLocked: "WITH " + lockKeys("SELECT unnest($3::text[])") +
			insert + "SELECT " + fields + " FROM " + unnest + ", (SELECT count(*) FROM l) locked ORDER BY e.n",
	}
}

// lockKeys locks distinct keys in one order for everybody ("C": the order must
// not depend on a database's collation).
func lockKeys(keys string) string {
	return `l AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended(k.key, 0)) FROM (SELECT DISTINCT key COLLATE "C" AS key FROM (` +
		keys + `) AS a(key) WHERE key <> '' ORDER BY 1) AS k) `
}

func placeholders(from int) string {
	p := make([]string, numColumns)
	for i := range p {
		p[i] = "$" + strconv.Itoa(from+i) + "::" + casts[i]
	}
	return strings.Join(p, ", ")
}

func (r *row) args(source string) []any {
	var payload any // not r.payload itself: lib/pq sends a nil []byte as an empty one
	if r.payload != nil {
		payload = r.payload
	}
	return []any{r.eventID, r.topic, r.key, r.typ, source, r.time, r.correlationID, r.causationID, r.headers, payload, r.schemaFP}
}

func (o *Outbox) locks(r *row) bool { return o.keyLock && r.key != "" }

// pgxStatement inserts one row by scalars and many by arrays: one statement text
// each, so that pgx's statement cache holds two entries, not one for each count.
func (o *Outbox) pgxStatement(rows []row) (string, []any) {
	if len(rows) == 1 {
		return o.oneStatement(rows)
	}
	n := len(rows)
	ids, topics, keys, types := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	times := make([]*time.Time, n)
	corr, caus, headers := make([]*string, n), make([]*string, n), make([]*string, n)
	payloads, fps := make([][]byte, n), make([]*int64, n)
	for i := range rows {
		r := &rows[i]
		ids[i], topics[i], keys[i], types[i] = r.eventID, r.topic, r.key, r.typ
		times[i], corr[i], caus[i], headers[i] = r.time, r.correlationID, r.causationID, r.headers
		payloads[i], fps[i] = r.payload, r.schemaFP
	}
	query := o.sql.many
	if o.keyLock {
		query = o.sql.manyLocked
	}
	return query, []any{ids, topics, keys, types, o.cfg.Source, times, corr, caus, headers, payloads, fps}
}

func (o *Outbox) oneStatement(rows []row) (string, []any) {
	query := o.sql.one
	if o.locks(&rows[0]) {
		query = o.sql.oneLocked
	}
	return query, rows[0].args(o.cfg.Source)
}

// sqlStatement inserts rows by scalars only: database/sql has no arrays that
// every driver understands.
func (o *Outbox) sqlStatement(rows []row) (string, []any) {
	if len(rows) == 1 {
		return o.oneStatement(rows)
	}
	values := make([]string, len(rows))
	args := make([]any, 0, len(rows)*numColumns)
	var keys []string
	for i := range rows {
		values[i] = "(" + strconv.Itoa(i) + ", " + placeholders(len(args)+1) + ")"
		if o.locks(&rows[i]) {
			keys = append(keys, fmt.Sprintf("($%d::text)", len(args)+3))
		}
		args = append(args, rows[i].args(o.cfg.Source)...)
	}
	insert := "INSERT INTO " + o.sql.table + " (" + columns + ") SELECT " + columns +
		" FROM (VALUES " + strings.Join(values, ", ") + ") AS e(n, " + columns + ")"
	if len(keys) == 0 {
		return insert + " ORDER BY e.n", args
	}
	return "WITH " + lockKeys("VALUES "+strings.Join(keys, ", ")) + insert + ", (SELECT count(*) FROM l) locked ORDER BY e.n", args
}
