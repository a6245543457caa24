package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// needVersion is the outbox migration that this code needs.
const needVersion = 1

// slots is the number of the event table's partitions.
const slots = 8

// check refuses a database that is not migrated or in which the role lacks a
// right, before anything else can fail on it in a more puzzling way.
func (r *Relay) check(ctx context.Context) error {
	op, cancel := r.op(ctx)
	defer cancel()
	var version int
	err := r.pool.QueryRow(op, r.q.version).Scan(&version)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000"), errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w (schema %q has version 0, this relay needs %d)", ErrNotMigrated, r.cfg.Schema, needVersion)
	case errors.As(err, &pg) && pg.Code == "42501":
		return r.deniedAtAll(op)
	case err != nil:
		return fmt.Errorf("check the database: %w", err)
	case version < needVersion:
		return fmt.Errorf("%w (schema %q has version %d, this relay needs %d)", ErrNotMigrated, r.cfg.Schema, version, needVersion)
	}
	kinds, objects, privileges := wanted()
	var g GrantError
	err = r.pool.QueryRow(op, r.q.grants, kinds, objects, privileges).Scan(&g.Role, &g.Privilege, &g.Object)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check grants: %w", err)
	}
	return &g
}

// deniedAtAll names what keeps the role from even reading the version.
func (r *Relay) deniedAtAll(ctx context.Context) error {
	g := &GrantError{Privilege: "USAGE", Object: "SCHEMA " + r.cfg.Schema}
	var usage bool
	err := r.pool.QueryRow(ctx, `SELECT current_user, has_schema_privilege($1, 'USAGE')`, r.cfg.Schema).Scan(&g.Role, &usage)
	if err != nil {
		return fmt.Errorf("check grants: %w", err)
	}
	if usage {
		g.Privilege, g.Object = "SELECT", "TABLE "+r.cfg.Schema+".schema_version"
	}
	return g
}

// wanted lists the rights that the statements in queries need, as three parallel
// columns: 'T'able or 'S'equence, name, privilege.
func wanted() (kinds, objects, privileges []string) {
	add := func(kind, object string, privs ...string) {
		for _, p := range privs {
			kinds, objects, privileges = append(kinds, kind), append(objects, object), append(privileges, p)
		}
	}
	add("T", "event", "SELECT")
	for i := range slots {
		add("T", fmt.Sprintf("event_%d", i), "SELECT", "TRUNCATE")
	}
	add("S", "event_id_seq", "SELECT")
	add("S", "slot_seq", "SELECT", "UPDATE")
	add("T", "schema", "SELECT")
	add("T", "meta", "SELECT")
	add("T", "pipeline", "SELECT", "INSERT", "UPDATE")
	add("T", "instance", "SELECT", "INSERT", "UPDATE", "DELETE")
	add("T", "lease", "SELECT", "INSERT", "UPDATE")
	add("T", "position", "SELECT", "INSERT", "DELETE")
	add("T", "incarnation", "SELECT", "INSERT")
	add("T", "parked", "SELECT", "INSERT", "UPDATE", "DELETE")
	add("T", "parked_action", "SELECT", "INSERT", "UPDATE")
	add("T", "replay", "SELECT", "INSERT", "UPDATE", "DELETE")
	return kinds, objects, privileges
}
