package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func (d *diagnosis) postgres(ctx context.Context) (string, error) {
	var version, database, user string
	var standby bool
	if err := d.one(ctx, `SELECT current_setting('server_version'), current_database(), current_user::text, pg_is_in_recovery()`, nil,
		&version, &database, &user, &standby); err != nil {
		d.fail("see whether it runs, and whether address, user and TLS settings of database.url are right", "Postgres does not answer: %v", err)
		return "", nil
	}
	if standby {
		d.fail("point database.url at the primary, for example with target_session_attrs=read-write", "this is a standby: nothing can be published from it")
	}
	return fmt.Sprintf("Postgres %s, database %s, role %s", version, database, user), nil
}

func (d *diagnosis) migrations(ctx context.Context) (string, error) {
	var version int
	err := d.one(ctx, sqlVersion, nil, &version)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000"), errors.Is(err, pgx.ErrNoRows):
		d.fail("relay migrate up", "schema %q has no tables of an outbox", d.cfg.Schema)
		return "", nil
	case err != nil:
		return "", err
	case version < needVersion:
		d.fail("relay migrate up", "schema %q has version %d, this relay needs %d", d.cfg.Schema, version, needVersion)
	case version > needVersion:
		d.warn("use the newer relay's doctor", "schema %q has version %d, this relay knows %d", d.cfg.Schema, version, needVersion)
	}
	return fmt.Sprintf("version %d", version), nil
}

const (
	// clockOff is more than NTP leaves, clockLost what no inbox takes: ids from so far
	// ahead are refused.
	clockOff  = 2 * time.Second
	clockLost = time.Hour
)

// clock compares this machine's with the database's; half of the round trip is the
// doubt that remains.
func (d *diagnosis) clock(ctx context.Context) (string, error) {
	var theirs time.Time
	before := time.Now()
	if err := d.one(ctx, `SELECT clock_timestamp()`, nil, &theirs); err != nil {
		return "", err
	}
	trip := time.Since(before)
	ahead := theirs.Sub(before.Add(trip / 2))
	off := max(ahead.Abs()-trip/2, 0)
	const cure = "synchronise both clocks (NTP, chrony)"
	const harm = "the database's clock is %s this machine's: ids and ages are wrong by that, leases are not"
	switch {
	case off > clockLost:
		d.fail(cure, harm+"; inboxes refuse ids from more than an hour ahead", skew(ahead))
	case off > clockOff:
		d.warn(cure, harm, skew(ahead))
	}
	return fmt.Sprintf("the database's is %s this machine's, to within %s", skew(ahead), (trip / 2).Round(time.Millisecond)), nil
}

func (d *diagnosis) durability(ctx context.Context) (string, error) {
	var fsync, pages, commit string
	if err := d.one(ctx, `SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')`, nil, &fsync, &pages, &commit); err != nil {
		return "", err
	}
	if fsync != "on" || pages != "on" {
		d.fail("set both to on and restart Postgres", "fsync is %s and full_page_writes %s: a crash of the machine loses or breaks committed events", fsync, pages)
	}
	if commit == "off" {
		d.warn("ALTER DATABASE … SET synchronous_commit = on, or for the writers' role", "synchronous_commit is off for this role: a crash forgets commits whose events may already be published")
	}
	return "fsync, full_page_writes and synchronous_commit are on", nil
}

const (
	sqlAllGrants = `SELECT priv, CASE kind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || '{s}.' || obj
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY r(kind, obj, priv, n)
WHERE NOT CASE kind WHEN 'S' THEN has_sequence_privilege($4::name, '{s}.' || obj, priv) ELSE has_table_privilege($4::name, '{s}.' || obj, priv) END ORDER BY n`
	// What the migration's grants give a writer.
	sqlWriterGrants = `SELECT * FROM (
  SELECT 'USAGE', 'SCHEMA {s}', has_schema_privilege($1::name, '{s}', 'USAGE')
  UNION ALL SELECT 'INSERT (' || c || ')', 'TABLE {s}.event', has_column_privilege($1::name, '{s}.event', c, 'INSERT')
    FROM unnest('{event_id,topic,key,type,source,time,content_type,correlation_id,causation_id,headers,payload,schema_fp}'::text[]) c
  UNION ALL SELECT 'USAGE', 'SEQUENCE {s}.event_id_seq', has_sequence_privilege($1::name, '{s}.event_id_seq', 'USAGE')
  UNION ALL SELECT 'SELECT', 'SEQUENCE {s}.slot_seq', has_sequence_privilege($1::name, '{s}.slot_seq', 'SELECT')
  UNION ALL SELECT 'EXECUTE', 'FUNCTION {s}.uuid_v7', has_function_privilege($1::name, '{s}.uuid_v7()', 'EXECUTE')
  UNION ALL SELECT p, 'TABLE {s}.schema', has_table_privilege($1::name, '{s}.schema', p) FROM unnest('{SELECT,INSERT}'::text[]) p
  UNION ALL SELECT 'SELECT', 'TABLE {s}.schema_version', has_table_privilege($1::name, '{s}.schema_version', 'SELECT')) g(priv, obj, has)
WHERE NOT has`
	sqlRoles = `SELECT current_user::text, EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
  coalesce((SELECT NOT rolsuper AND has_column_privilege(oid, '{s}.event', 'xid', 'INSERT')
    AND NOT pg_has_role(oid, (SELECT relowner FROM pg_class WHERE oid = '{s}.event'::regclass), 'USAGE') FROM pg_roles WHERE rolname = $1), false)`
)

func (d *diagnosis) grants(ctx context.Context) (string, error) {
	role := d.cfg.Relay
	var user string
	var writer, forges bool
	if err := d.one(ctx, sqlRoles, []any{d.cfg.Writer}, &user, &writer, &forges); err != nil {
		return "", err
	}
	if role == "" {
		role = user
	}
	kinds, objects, privileges := wanted()
	if err := d.lacking(ctx, role, sqlAllGrants, kinds, objects, privileges, role); err != nil {
		return "", err
	}
	switch {
	case !writer && d.asked != "":
		d.unknown("see the name given with --writer", "there is no role %q", d.cfg.Writer)
	case !writer:
		return fmt.Sprintf("%s has all that a relay needs; there is no role outbox_writer to look at", role), nil
	case forges:
		d.fail(fmt.Sprintf("REVOKE INSERT ON %s.event FROM %q; then grant what relay migrate sql prints", d.cfg.Schema, d.cfg.Writer),
			"%s may set xid, id and slot of an event: what it sets wrongly is lost or out of order", d.cfg.Writer)
	}
	if writer {
		if err := d.lacking(ctx, d.cfg.Writer, sqlWriterGrants, d.cfg.Writer); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s and %s have what they need", role, d.cfg.Writer), nil
}

// lacking adds one finding for all rights that a role lacks.
func (d *diagnosis) lacking(ctx context.Context, role, query string, args ...any) error {
	rows, err := d.pool.Query(ctx, d.sql(query), args...)
	if err != nil {
		return err
	}
	var privilege, object string
	var held *bool
	var list, cures []string
	for rows.Next() {
		dest := []any{&privilege, &object}
		if len(rows.FieldDescriptions()) > len(dest) {
			dest = append(dest, &held)
		}
		if err := rows.Scan(dest...); err != nil {
			rows.Close()
			return err
		}
		list = append(list, privilege+" on "+object)
		cures = append(cures, fmt.Sprintf("GRANT %s ON %s TO %q;", privilege, object, role))
	}
	if rows.Err() == nil && len(list) > 0 {
		d.fail(strings.Join(cures, " "), "%s lacks %s", role, strings.Join(list, ", "))
	}
	return rows.Err()
}

func (d *diagnosis) identity(ctx context.Context) (string, error) {
	var shards int
	var ourSys, sys, ourDB, db int64
	err := d.one(ctx, sqlIdentity, nil, &shards, &ourSys, &sys, &ourDB, &db)
	const cure = "stop all relays, then relay rebase"
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		d.fail(cure, "%s.meta is empty: whose transaction ids the log has is not known", d.cfg.Schema)
		return "", nil
	case err != nil:
		return "", err
	case shards != shardCount:
		d.fail("relay migrate up", "%d shards, this relay needs %d", shards, shardCount)
	case ourSys != sys || ourDB != db:
		d.fail(cure, "the log comes from another cluster or database (made in system %d database %d, found in system %d database %d): its positions mean nothing here", ourSys, ourDB, sys, db)
		return "", nil
	}
	var ahead bool
	if err := d.one(ctx, sqlAhead, nil, &ahead); err != nil {
		return "", err
	}
	if ahead {
		d.fail(cure, "stored transaction ids lie ahead of the cluster's: it was restored to an earlier time, or is another one")
	}
	return "the log belongs to this cluster and database", nil
}

// skew says how far a clock is off, to go before the name of another.
func skew(ahead time.Duration) string {
	if ahead = ahead.Round(time.Millisecond); ahead < 0 {
		return (-ahead).String() + " behind"
	}
	return ahead.String() + " ahead of"
}
