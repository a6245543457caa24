package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/relay"
)

// window is how long a consumer remembers what it has handled.
type window struct {
	inbox, consumer string
	days            int
}

func (d *doctor) inboxes(ctx context.Context) {
	for i, e := range d.config.Inboxes {
		v := &validator{file: d.path}
		database := v.checkDatabase(fmt.Sprintf("inboxes[%d]", i), &e.databaseConfig)
		if e.Name == "" {
			e.Name = database
		}
		subject := strings.TrimSpace("inbox " + e.Name)
		if err := v.err(); err != nil {
			d.add(subject, "configuration", relay.VerdictUnknown, "set it, or run relay doctor where it is set", "%v", err)
			continue
		}
		d.inbox(ctx, subject, e)
	}
}

func (d *doctor) inbox(ctx context.Context, subject string, e inboxEntry) {
	ctx, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	pool, err := openPool(ctx, config{Database: e.databaseConfig})
	if err != nil {
		d.add(subject, "postgres", relay.VerdictFailure, "", "%s", explained(err))
		return
	}
	defer pool.Close()
	set := migrate.Inbox(e.Schema)
	x := inboxDoctor{doctor: d, subject: subject, name: e.Name, pool: pool, set: set}
	if !x.postgres(ctx) || !x.migrations(ctx) {
		return
	}
	for _, check := range []func(context.Context) error{x.grants, x.consumers, x.dead} {
		if err := check(ctx); err != nil {
			d.add(subject, "inbox", relay.VerdictUnknown, "ask as the consumer's role, or grant it what relay migrate sql inbox prints", "could not be checked: %v", err)
		}
	}
}

// inboxDoctor examines one consumer's database.
type inboxDoctor struct {
	*doctor
	subject, name string
	pool          *pgxpool.Pool
	set           migrate.Set
}

func (x inboxDoctor) sql(query string) string {
	return strings.ReplaceAll(query, "{s}", x.set.Schema())
}

func (x inboxDoctor) postgres(ctx context.Context) bool {
	var theirs time.Time
	var standby bool
	before := time.Now()
	if err := x.pool.QueryRow(ctx, `SELECT clock_timestamp(), pg_is_in_recovery()`).Scan(&theirs, &standby); err != nil {
		x.add(x.subject, "postgres", relay.VerdictFailure, "see whether it runs, and whether address, user and TLS settings of the url are right", "Postgres does not answer: %v", err)
		return false
	}
	trip := time.Since(before)
	if standby {
		x.add(x.subject, "postgres", relay.VerdictFailure, "point the url at the primary", "this is a standby: nothing can be handled there")
		return false
	}
	x.add(x.subject, "postgres", relay.VerdictOK, "", "answers")
	x.clock(x.subject, "the database's", theirs, before, trip, 0)
	return true
}

// clock compares another machine's with this one's. Its answer is exact to within
// doubt beside the round trip.
func (d *doctor) clock(subject, whose string, theirs, before time.Time, trip, doubt time.Duration) {
	ahead := theirs.Sub(before.Add(trip / 2))
	off := max(ahead.Abs()-trip/2-doubt, 0)
	verdict, cure := relay.VerdictOK, ""
	switch {
	case off > time.Hour:
		verdict = relay.VerdictFailure // inboxes refuse ids from so far ahead
	case off > 2*time.Second:
		verdict = relay.VerdictWarning
	}
	if verdict != relay.VerdictOK {
		cure = "synchronise both clocks (NTP, chrony)"
	}
	d.add(subject, "clock", verdict, cure, "%s is %s this machine's, to within %s", whose, skew(ahead), (trip/2 + doubt).Round(time.Millisecond))
}

func (x inboxDoctor) migrations(ctx context.Context) bool {
	conn, err := x.pool.Acquire(ctx)
	if err != nil {
		x.add(x.subject, "migrations", relay.VerdictUnknown, "", "could not be checked: %v", err)
		return false
	}
	defer conn.Release()
	st, err := x.set.Status(ctx, conn.Conn())
	switch {
	case err != nil:
		x.add(x.subject, "migrations", relay.VerdictUnknown, "grant the role what relay migrate sql inbox prints", "could not be checked: %v", err)
		return false
	case st.Current < st.Latest:
		x.add(x.subject, "migrations", relay.VerdictFailure, "relay migrate up inbox", "schema %q has version %d, this version needs %d", st.Schema, st.Current, st.Latest)
		return false
	case st.Current > st.Latest:
		x.add(x.subject, "migrations", relay.VerdictWarning, "use the newer relay's doctor", "schema %q has version %d, this relay knows %d", st.Schema, st.Current, st.Latest)
	default:
		x.add(x.subject, "migrations", relay.VerdictOK, "", "version %d", st.Current)
	}
	return true
}

// What the migration's grants give a consumer.
const sqlConsumerGrants = `SELECT current_user::text, coalesce(string_agg(format('GRANT %s ON %s TO %I', priv, obj, current_user), '; '), '') FROM (
  SELECT 'USAGE', 'SCHEMA {s}', has_schema_privilege('{s}', 'USAGE')
  UNION ALL SELECT p, 'TABLE {s}.consumer', has_table_privilege('{s}.consumer', p) FROM unnest('{SELECT,INSERT}'::text[]) p
  UNION ALL SELECT 'UPDATE (window_days)', 'TABLE {s}.consumer', has_column_privilege('{s}.consumer', 'window_days', 'UPDATE')
  UNION ALL SELECT 'INSERT', 'TABLE {s}.seen_' || n, has_table_privilege('{s}.seen_' || n, 'INSERT') FROM generate_series(0, 35) n
  UNION ALL SELECT 'SELECT (consumer, event_key)', 'TABLE {s}.seen_' || n, has_column_privilege('{s}.seen_' || n, 'consumer', 'SELECT')
    AND has_column_privilege('{s}.seen_' || n, 'event_key', 'SELECT') FROM generate_series(0, 35) n
  UNION ALL SELECT 'SELECT', 'TABLE {s}.retention', has_table_privilege('{s}.retention', 'SELECT')
  UNION ALL SELECT 'EXECUTE', 'FUNCTION {s}.' || f, has_function_privilege('{s}.' || f, 'EXECUTE') FROM unnest('{forget_seen(integer),forget_foreign(integer),turn_foreign()}'::text[]) f
  UNION ALL SELECT p, 'TABLE {s}.seen_foreign', has_table_privilege('{s}.seen_foreign', p) FROM unnest('{SELECT,INSERT}'::text[]) p
  UNION ALL SELECT p, 'TABLE {s}.dead', has_table_privilege('{s}.dead', p) FROM unnest('{SELECT,INSERT}'::text[]) p
  UNION ALL SELECT 'UPDATE (' || c || ')', 'TABLE {s}.dead', has_column_privilege('{s}.dead', c, 'UPDATE')
    FROM unnest('{state,reason,error,attempts,earlier_attempts,next_attempt_at,action}'::text[]) c
  UNION ALL SELECT p, 'TABLE {s}.dead_action', has_table_privilege('{s}.dead_action', p) FROM unnest('{SELECT,INSERT}'::text[]) p
  UNION ALL SELECT 'UPDATE (events)', 'TABLE {s}.dead_action', has_column_privilege('{s}.dead_action', 'events', 'UPDATE')
  UNION ALL SELECT p, 'TABLE {s}.run', has_table_privilege('{s}.run', p) FROM unnest('{SELECT,INSERT,DELETE}'::text[]) p
  UNION ALL SELECT p, 'TABLE {s}.begun', has_table_privilege('{s}.begun', p) FROM unnest('{SELECT,INSERT,DELETE}'::text[]) p
  UNION ALL SELECT 'UPDATE (attempts, at)', 'TABLE {s}.begun', has_column_privilege('{s}.begun', 'attempts', 'UPDATE') AND has_column_privilege('{s}.begun', 'at', 'UPDATE')
) g(priv, obj, has) WHERE NOT has`

func (x inboxDoctor) grants(ctx context.Context) error {
	var user, lacking string
	if err := x.pool.QueryRow(ctx, x.sql(sqlConsumerGrants)).Scan(&user, &lacking); err != nil {
		return err
	}
	if lacking != "" {
		x.add(x.subject, "grants", relay.VerdictFailure, lacking, "%s lacks rights of a consumer (if consumers run as another role, give that one's url)", user)
		return nil
	}
	x.add(x.subject, "grants", relay.VerdictOK, "", "%s has all that a consumer needs", user)
	return nil
}

func (x inboxDoctor) consumers(ctx context.Context) error {
	rows, err := x.pool.Query(ctx, x.sql(`SELECT name, window_days::int FROM {s}.consumer ORDER BY name`))
	if err != nil {
		return err
	}
	w := window{inbox: x.name}
	var list []string
	if _, err := pgx.ForEachRow(rows, []any{&w.consumer, &w.days}, func() error {
		x.windows = append(x.windows, w)
		list = append(list, fmt.Sprintf("%s (remembers %d days)", w.consumer, w.days))
		return nil
	}); err != nil {
		return err
	}
	if len(list) == 0 {
		x.add(x.subject, "consumers", relay.VerdictWarning, "start the consumer, or take the inbox out of the configuration", "no consumer has ever run on this database")
		return nil
	}
	x.add(x.subject, "consumers", relay.VerdictOK, "", "%s", strings.Join(list, ", "))
	return nil
}

func (x inboxDoctor) dead(ctx context.Context) error {
	rows, err := x.pool.Query(ctx, x.sql(`SELECT c.name, count(*) FILTER (WHERE d.state IN ('dead', 'moving', 'moved')), count(*) FILTER (WHERE d.state = 'blocked'),
  extract(epoch FROM clock_timestamp() - min(d.created_at))::float8
FROM {s}.dead d JOIN {s}.consumer c ON c.id = d.consumer WHERE d.state IN ('dead', 'blocked', 'moving', 'moved') GROUP BY c.name ORDER BY c.name`))
	if err != nil {
		return err
	}
	var name string
	var dead, blocked int64
	var oldest float64
	found := false
	if _, err := pgx.ForEachRow(rows, []any{&name, &dead, &blocked, &oldest}, func() error {
		found = true
		x.add(x.subject, "dead letters", relay.VerdictWarning, fmt.Sprintf("relay dlq list --inbox %s --consumer %s", x.name, name),
			"%d events of consumer %s are dead, %d wait behind them; the first is %s old", dead, name, blocked, age(oldest))
		return nil
	}); err != nil {
		return err
	}
	if !found {
		x.add(x.subject, "dead letters", relay.VerdictOK, "", "none")
	}
	return nil
}

// skew says how far a clock is off, to go before the name of another.
func skew(ahead time.Duration) string {
	if ahead = ahead.Round(time.Millisecond); ahead < 0 {
		return (-ahead).String() + " behind"
	}
	return ahead.String() + " ahead of"
}
