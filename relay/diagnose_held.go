package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Who holds what back. Two things are held: the truncation of slots waits for every
// transaction that has drawn an id, in any database of the server, since a position's
// snapshot lists it; the removal of dead rows waits for every snapshot in this
// database. Neither keeps an event from being published.
const (
	sqlLongTransactions = `SELECT a.pid, '', coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.backend_xid::text, ''),
  a.xact_start, coalesce(a.state, ''), coalesce(host(a.client_addr), ''), coalesce(left(a.query, 200), ''), a.datname::text
FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.datname IS NOT NULL
  AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL AND a.datname = current_database())
  AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - $1::bigint * interval '1 ms')
ORDER BY a.xact_start NULLS LAST LIMIT 20`
	sqlLongPrepared = `SELECT 0, p.gid, p.owner::text, '', p.transaction::text, p.prepared, 'prepared', '', '', p.database::text
FROM pg_prepared_xacts p WHERE p.prepared < clock_timestamp() - $1::bigint * interval '1 ms' ORDER BY p.prepared LIMIT 20`
	// Transactions by their ids, of which the activity shows the lower half.
	sqlTransactionOf = `SELECT a.pid, '', coalesce(a.usename::text, ''), coalesce(a.application_name, ''), a.backend_xid::text,
  a.xact_start, coalesce(a.state, ''), coalesce(host(a.client_addr), ''), coalesce(left(a.query, 200), ''), a.datname::text
FROM pg_stat_activity a WHERE a.backend_xid::text::bigint = $1::bigint % 4294967296
UNION ALL SELECT 0, p.gid, p.owner::text, '', p.transaction::text, p.prepared, 'prepared', '', '', p.database::text
FROM pg_prepared_xacts p WHERE p.transaction::text::bigint = $1::bigint % 4294967296`
	sqlReplicationSlots = `SELECT slot_name::text, slot_type, active, coalesce(xmin::text, ''), coalesce(catalog_xmin::text, ''),
  coalesce(greatest(age(xmin), age(catalog_xmin)), 0)::bigint, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots ORDER BY slot_name`
)

// placed is a transaction with its database.
type placed struct {
	OpenTransaction
	database string
}

func (p placed) String() string {
	return fmt.Sprintf("%s, in database %s", p.OpenTransaction, p.database)
}

func (d *diagnosis) open(ctx context.Context, query string, args ...any) ([]placed, error) {
	rows, err := d.pool.Query(ctx, d.sql(query), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (t placed, err error) {
		var since *time.Time
		var database *string
		err = row.Scan(&t.PID, &t.Prepared, &t.User, &t.Application, &t.Transaction, &since, &t.State, &t.Client, &t.Query, &database)
		if t.Since = timeOf(since); t.Since.IsZero() {
			t.Query = ""
		}
		t.database = deref(database)
		return t, err
	})
}

func (d *diagnosis) transactions(ctx context.Context) (string, error) {
	list, err := d.open(ctx, sqlLongTransactions, d.cfg.Long.Milliseconds())
	if err != nil {
		return "", err
	}
	unseen := 0
	for _, t := range list {
		if t.Since.IsZero() {
			unseen++
			continue
		}
		harm := "dead rows of this database cannot be removed"
		if t.Transaction != "" {
			harm = "what it writes is not published, and no slot of the log with events since then can be truncated"
		}
		d.warn(t.Cure(), "open for longer than %s: %s. Until it ends %s", d.cfg.Long, t, harm)
	}
	if unseen > 0 {
		d.unknown("GRANT pg_read_all_stats TO the role that asks, or ask as one that has it", "%d transactions of other roles are open, since when this role may not see", unseen)
	}
	return fmt.Sprintf("none is open for longer than %s", d.cfg.Long), nil
}

func (d *diagnosis) prepared(ctx context.Context) (string, error) {
	list, err := d.open(ctx, sqlLongPrepared, d.cfg.Long.Milliseconds())
	if err != nil {
		return "", err
	}
	for _, t := range list {
		d.warn(t.Cure(), "%s. Until it ends its events are not published, its locks stay, and neither slots of the log nor dead rows go", t)
	}
	return fmt.Sprintf("none is older than %s", d.cfg.Long), nil
}

// oldSnapshot is how many transactions a slot in use may be behind.
const oldSnapshot = 10_000_000

func (d *diagnosis) replicationSlots(ctx context.Context) (string, error) {
	rows, err := d.pool.Query(ctx, sqlReplicationSlots)
	if err != nil {
		return "", err
	}
	var name, kind, xmin, catalog string
	var active bool
	var behind, wal int64
	slots := 0
	_, err = pgx.ForEachRow(rows, []any{&name, &kind, &active, &xmin, &catalog, &behind, &wal}, func() error {
		slots++
		holds := fmt.Sprintf("keeps %d MiB of WAL", wal>>20)
		if xmin != "" {
			holds += fmt.Sprintf(" and every dead row since transaction %s, %d transactions ago", xmin, behind)
		} else if catalog != "" {
			holds += fmt.Sprintf(" and dead rows of the catalogs since transaction %s, %d transactions ago", catalog, behind)
		}
		switch {
		case !active:
			d.warn(fmt.Sprintf("bring its consumer back, or SELECT pg_drop_replication_slot('%s')", name), "%s replication slot %s is used by nobody and %s", kind, name, holds)
		case behind > oldSnapshot:
			d.warn("see what keeps its consumer: a long query on a standby with hot_standby_feedback, or a slow subscriber", "%s replication slot %s %s", kind, name, holds)
		}
		return nil
	})
	return fmt.Sprintf("%d, all in use", slots), err
}
