package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/migrate"
)

// roleFlags name the roles that grants go to.
func (f *migrateFlags) roleFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.roles.Writer, "writer", "outbox_writer", "`role` of services that write events")
	cmd.Flags().StringVar(&f.roles.Relay, "relay", "outbox_relay", "`role` of the relay")
	cmd.Flags().StringVar(&f.roles.Consumer, "consumer", "inbox_consumer", "`role` of services that consume events")
}

// giveGrants gives the roles their rights: all of them, or none.
func (f *migrateFlags) giveGrants(ctx context.Context, set migrate.Set, conn *pgx.Conn) error {
	grants, err := set.Grants(f.roles)
	if err != nil {
		return err
	}
	var pg *pgconn.PgError
	for range 5 {
		_, err = conn.Exec(ctx, grants) // without parameters: one transaction
		// Postgres lets nobody wait for a catalogue row that somebody changes just now: a
		// relay that truncates a slot, another grant. The next attempt comes after it.
		if !errors.As(err, &pg) || pg.Code != "XX000" {
			break
		}
	}
	if err != nil && pg != nil && pg.Code == "42704" { // undefined_object
		return fmt.Errorf("grant: %s; the tables are migrated. Create the role (CREATE ROLE … LOGIN), or name another with --writer, --relay, --consumer, and repeat", pg.Message)
	}
	if err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	return nil
}
