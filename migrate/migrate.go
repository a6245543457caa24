package migrate

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"text/template"

	"github.com/jackc/pgx/v5"
	tern "github.com/jackc/tern/v2/migrate"
)

//go:embed outbox inbox
var files embed.FS

// Set is one schema's migrations. It is a value and safe for concurrent use.
type Set struct {
	kind   string // folder in files
	schema string
}

// Outbox is the set for services that write events. An empty schema means "outbox".
func Outbox(schema string) Set { return newSet("outbox", schema) }

// Inbox is the set for services that consume events, dedup tables included. An
// empty schema means "inbox".
func Inbox(schema string) Set { return newSet("inbox", schema) }

func newSet(kind, schema string) Set {
	if schema == "" {
		schema = kind
	}
	return Set{kind: kind, schema: schema}
}

// Schema returns the name of the database schema.
func (s Set) Schema() string { return s.schema }

// Status says how far a database has been migrated.
type Status struct {
	Schema  string   `json:"schema"`
	Current int32    `json:"current"` // 0 = not migrated at all
	Latest  int32    `json:"latest"`
	Pending []string `json:"pending"` // file names, in order
}

// Up runs all pending migrations, each in a transaction of its own.
func (s Set) Up(ctx context.Context, conn *pgx.Conn) error {
	return s.locked(ctx, conn, func(m *tern.Migrator) error { return m.Migrate(ctx) })
}

// Down goes back to version; 0 drops everything, the events included.
func (s Set) Down(ctx context.Context, conn *pgx.Conn, version int32) error {
	return s.locked(ctx, conn, func(m *tern.Migrator) error {
		current, err := m.GetCurrentVersion(ctx)
		if err != nil {
			return err
		}
		if version < 0 || version > current {
			return fmt.Errorf("version %d: must be between 0 and the current version, %d", version, current)
		}
		return m.MigrateTo(ctx, version)
	})
}

// Status reads the current version. It changes nothing: a database that has
// never been migrated has version 0.
func (s Set) Status(ctx context.Context, conn *pgx.Conn) (Status, error) {
	m, err := s.migrator(ctx, nil)
	if err != nil {
		return Status{}, err
	}
	st := Status{Schema: s.schema, Latest: int32(len(m.Migrations)), Pending: []string{}} //nolint:gosec // a handful
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, s.versionTable()).Scan(&exists); err != nil {
		return Status{}, fmt.Errorf("migrate %s: %w", s.schema, err)
	}
	if exists {
		if err := conn.QueryRow(ctx, `SELECT version FROM `+s.versionTable()).Scan(&st.Current); err != nil {
			return Status{}, fmt.Errorf("migrate %s: %w", s.schema, err)
		}
	}
	for _, mig := range m.Migrations {
		if mig.Sequence > st.Current {
			st.Pending = append(st.Pending, mig.Name)
		}
	}
	return st, nil
}

// SQL returns everything that Up would run on an empty database, for teams that
// apply schemas with a tool of their own, the version's record included.
func (s Set) SQL(ctx context.Context) (string, error) {
	m, err := s.migrator(ctx, nil)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "BEGIN;\nCREATE SCHEMA IF NOT EXISTS %s;\n", s.schema)
	fmt.Fprintf(&b, "CREATE TABLE %s (version int4 NOT NULL);\nINSERT INTO %s (version) VALUES (0);\n", s.versionTable(), s.versionTable())
	for _, mig := range m.Migrations {
		fmt.Fprintf(&b, "\n-- %s\n%s\n", mig.Name, mig.UpSQL)
	}
	fmt.Fprintf(&b, "\nUPDATE %s SET version = %d;\nCOMMIT;\n", s.versionTable(), len(m.Migrations))
	return b.String(), nil
}

// Roles names the database roles that the grants go to. Empty fields mean
// outbox_writer, outbox_relay and inbox_consumer.
type Roles struct {
	Writer   string // writes events
	Relay    string // runs the relay
	Consumer string // runs inboxes and dedup stores
}

// Grants returns the GRANT statements that the roles need on this schema, and no
// more than they need. The roles must exist when the statements run.
func (s Set) Grants(roles Roles) (string, error) {
	text, err := fs.ReadFile(files, s.kind+"/grants.sql.tmpl")
	if err != nil {
		return "", err
	}
	tmpl, err := template.New("grants").Parse(string(text))
	if err != nil {
		return "", err
	}
	quoted := func(name, def string) string {
		if name == "" {
			name = def
		}
		return pgx.Identifier{name}.Sanitize()
	}
	var b bytes.Buffer
	err = tmpl.Execute(&b, map[string]string{
		"schema":   s.schema,
		"writer":   quoted(roles.Writer, "outbox_writer"),
		"relay":    quoted(roles.Relay, "outbox_relay"),
		"consumer": quoted(roles.Consumer, "inbox_consumer"),
	})
	return b.String(), err
}

func (s Set) versionTable() string { return s.schema + ".schema_version" }

// schemaName is deliberately narrow: the name stands unquoted in functions and
// defaults, where quoting rules differ.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

func (s Set) migrator(ctx context.Context, conn *pgx.Conn) (*tern.Migrator, error) {
	if !schemaName.MatchString(s.schema) {
		return nil, fmt.Errorf("schema %q: must be lower-case letters, digits and underscores, at most 40, not starting with a digit", s.schema)
	}
	m, err := tern.NewMigrator(ctx, conn, s.versionTable())
	if err != nil {
		return nil, err
	}
	m.Data["schema"] = s.schema
	sub, err := fs.Sub(files, s.kind)
	if err != nil {
		return nil, err
	}
	if err := m.LoadMigrations(sub); err != nil {
		return nil, err
	}
	return m, nil
}

// lockKey keeps two runs apart while they create the schema and the version
// table; the migrations themselves run under the library's own lock.
const lockKey = int64(0x6f7574626f786b74)

func (s Set) locked(ctx context.Context, conn *pgx.Conn, run func(*tern.Migrator) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("migrate %s: %w", s.schema, err)
		}
	}()
	if _, err := s.migrator(ctx, nil); err != nil { // bad name or file: before the database is touched
		return err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lockKey); err != nil {
		return err
	}
	defer func() {
		// Not ctx: the lock must go even when ctx has ended.
		_, unlockErr := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, lockKey)
		if err == nil {
			err = unlockErr
		}
	}()
	if _, err := conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS `+s.schema); err != nil {
		return err
	}
	m, err := s.migrator(ctx, conn)
	if err != nil {
		return err
	}
	return run(m)
}
