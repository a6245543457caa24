package relay

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// MissingEvent says why an event is not in the log, as far as that can be told: the
// log knows nothing of what was rolled back or never written.
type MissingEvent struct {
	// DrawnAt is the time in the id, zero if it has none.
	DrawnAt time.Time `json:"drawn_at,omitzero"`
	// OldestAt and NewestAt are when the log's oldest and newest event were written,
	// zero if it is empty.
	OldestAt time.Time `json:"oldest_at,omitzero"`
	NewestAt time.Time `json:"newest_at,omitzero"`
	// Open are the transactions that have written to the log, or tried to, and have
	// not ended: what they wrote is not visible to anybody. Those that began well
	// after the id was drawn are left out.
	Open []OpenTransaction `json:"open"`
	// Alike are events whose ids begin as what was asked for, or differ from it in
	// their beginning or their end alone.
	Alike []EventStory `json:"alike"`
	// Reasons say why, the likeliest first.
	Reasons []Reason `json:"reasons"`
}

// OpenTransaction is one that has not ended, of the current database.
type OpenTransaction struct {
	PID int `json:"pid,omitempty"` // of its backend; 0: it is prepared
	// Prepared is the name of a prepared transaction, "" otherwise.
	Prepared    string `json:"prepared,omitempty"`
	User        string `json:"user"`
	Application string `json:"application,omitempty"`
	Transaction string `json:"transaction,omitempty"` // its id; "" if it has written nothing
	// Since, State, Client and Query are empty where this role may not see them: it
	// needs pg_read_all_stats. Query is the last one, at most 200 characters of it.
	Since  time.Time `json:"since,omitzero"`
	State  string    `json:"state,omitempty"`
	Client string    `json:"client,omitempty"`
	Query  string    `json:"query,omitempty"`
}

// Cure is the statement that ends it.
func (t OpenTransaction) Cure() string {
	if t.Prepared != "" {
		name := strings.ReplaceAll(t.Prepared, "'", "''")
		return fmt.Sprintf("COMMIT PREPARED '%[1]s' or ROLLBACK PREPARED '%[1]s', as its transaction manager would", name)
	}
	return fmt.Sprintf("wait for it, or end it: SELECT pg_terminate_backend(%d)", t.PID)
}

// String says who it is, and since when.
func (t OpenTransaction) String() string {
	who := fmt.Sprintf("pid %d", t.PID)
	if t.Prepared != "" {
		who = fmt.Sprintf("prepared transaction %q", t.Prepared)
	}
	who += " of " + t.User
	if t.Application != "" {
		who += " (" + t.Application + ")"
	}
	if t.Since.IsZero() {
		return who + ", since when this role may not see (GRANT pg_read_all_stats to it)"
	}
	who += ", since " + t.Since.UTC().Format(time.RFC3339)
	if t.State != "" {
		who += ", " + t.State
	}
	if t.Query != "" {
		who += ": " + t.Query
	}
	return who
}

const (
	// Locks on the log's tables: a transaction that has inserted keeps them to its
	// end. Who holds them everybody may see.
	sqlOpenLocks = `SELECT %s FROM pg_locks l WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT '{s}.event'::regclass::oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = '{s}.event'::regclass)`
	openColumns = `SELECT a.pid, '', coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.backend_xid::text, ''),
  a.xact_start, coalesce(a.state, ''), coalesce(host(a.client_addr), ''), coalesce(left(a.query, 200), '')
FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.datname = current_database()`
	openPrepared = `SELECT 0, p.gid, p.owner::text, '', p.transaction::text, p.prepared, 'prepared', '', ''
FROM pg_prepared_xacts p WHERE p.database = current_database()`
)

// sqlOpenWriters lists who has written to the log, the oldest first; those whose
// age nobody tells come before all. A prepared transaction's locks belong to no
// backend: the one on its own id tells which they are, give or take another prepared
// one whose backend had counted as many transactions.
func sqlOpenWriters() string {
	return openColumns + ` AND a.pid IN (` + fmt.Sprintf(sqlOpenLocks, "l.pid") + `)
UNION ALL ` + openPrepared + ` AND EXISTS (SELECT FROM pg_locks own WHERE own.pid IS NULL AND own.locktype = 'transactionid'
  AND own.transactionid = p.transaction AND own.virtualtransaction IN (` + fmt.Sprintf(sqlOpenLocks, "l.virtualtransaction") + ` AND l.pid IS NULL))
ORDER BY 6 NULLS FIRST LIMIT 20`
}

// openWriters lists the transactions that have written to the log and not ended.
func openWriters(ctx context.Context, pool *pgxpool.Pool, schema string) ([]OpenTransaction, error) {
	rows, err := pool.Query(ctx, inSchema(sqlOpenWriters(), schema))
	if err != nil {
		return nil, fmt.Errorf("open transactions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t OpenTransaction, err error) {
		var since *time.Time
		err = row.Scan(&t.PID, &t.Prepared, &t.User, &t.Application, &t.Transaction, &since, &t.State, &t.Client, &t.Query)
		t.Since = timeOf(since)
		if t.Since.IsZero() {
			t.Query = "" // says only that it may not be seen
		}
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("open transactions: %w", err)
	}
	return list, nil
}

func (x *explainer) missing(ctx context.Context, s search) (*MissingEvent, error) {
	m := &MissingEvent{OldestAt: s.first.at, NewestAt: s.last.at, Open: []OpenTransaction{}, Alike: s.alike, Reasons: []Reason{}}
	if m.Alike = append(m.Alike, s.events...); m.Alike == nil {
		m.Alike = []EventStory{}
	}
	if x.id.timed && x.id.full {
		m.DrawnAt = x.id.from
	}
	open, err := openWriters(ctx, x.pool, x.cfg.Schema)
	if err != nil {
		return nil, err
	}
	for _, t := range open {
		// Ids are mostly drawn inside of the transaction, by a clock that may be off.
		if m.DrawnAt.IsZero() || t.Since.IsZero() || t.Prepared != "" || t.Since.Before(m.DrawnAt.Add(explainSlack)) {
			m.Open = append(m.Open, t)
		}
	}
	m.because(s, x.id.full)
	return m, nil
}

// because fills in the reasons.
func (m *MissingEvent) because(s search, full bool) {
	add := func(kind, cure, format string, args ...any) {
		m.Reasons = append(m.Reasons, Reason{Kind: kind, Text: fmt.Sprintf(format, args...), Cure: cure})
	}
	if len(m.Alike) > 0 {
		cure := "compare the id with where you have it from"
		if !full {
			cure = "give more of the id"
		}
		add(WhyAlike, cure, "%d ids look like it, for example %s of %s", len(m.Alike), m.Alike[0].EventID, m.Alike[0].Source)
	}
	if !full && len(s.events) > 0 {
		return
	}
	if !s.complete {
		add(WhyNotSearched, "give --source and the whole id, or look by hand: there is no index on event_id",
			"it is not among the events written within %s of the time in its id, and the rest of the log could not be searched in time", explainSlack)
	}
	// The oldest rows may have gone while the id was still young.
	truncated := !m.DrawnAt.IsZero() && !m.OldestAt.IsZero() && m.DrawnAt.Before(m.OldestAt)
	if truncated {
		add(WhyTruncated, "ask its consumers and the broker; keep events for longer with retention",
			"the log reaches back to %s: if it was committed it has been truncated since, which happens only when each pipeline has published it, parked it (then it would be here) or left it out",
			m.OldestAt.UTC().Format(time.RFC3339))
	}
	for _, t := range m.Open {
		add(WhyOpen, t.Cure(), "it may be in a transaction that is still open, whose events nobody can see: %s", t)
	}
	if !truncated && len(m.Open) == 0 {
		add(WhyRolledBack, "look into the service's log for the rollback, and whether it writes to this database and schema",
			"no transaction that could hold it is open: it was rolled back, or never written here")
	}
}
