package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/migrate"
)

// migrateFlags are shared by the migrate commands.
type migrateFlags struct {
	databaseURL string
	schema      string
	roles       migrate.Roles
	json        bool
	to          int32
	yes         bool
}

func newMigrate() *cobra.Command {
	f := &migrateFlags{}
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create and update the tables in a service's database",
		Long: `Create and update the tables of the outbox (in databases of services that write
events) or of the inbox, dedup included (in databases of services that consume
them). Each command takes "outbox", which is the default, or "inbox".

Use a direct connection, not a transaction-mode pooler. Two runs at once are safe.
The role that migrates owns the tables; services and relays need no more than the
grants that "relay migrate sql" prints.`,
	}
	cmd.PersistentFlags().StringVar(&f.databaseURL, "database-url", os.Getenv("DATABASE_URL"), "Postgres URL `postgres://…` (environment: DATABASE_URL)")
	cmd.PersistentFlags().StringVar(&f.schema, "schema", "", "database schema (default: outbox or inbox)")
	cmd.AddCommand(newMigrateUp(f), newMigrateDown(f), newMigrateStatus(f), newMigrateSQL(f))
	return cmd
}

// set is the argument of every migrate command.
func (f *migrateFlags) set(args []string) (migrate.Set, error) {
	switch {
	case len(args) == 0 || args[0] == "outbox":
		return migrate.Outbox(f.schema), nil
	case args[0] == "inbox":
		return migrate.Inbox(f.schema), nil
	default:
		return migrate.Set{}, fmt.Errorf("%q is not known: use outbox or inbox", args[0])
	}
}

func (f *migrateFlags) connect(ctx context.Context, args []string, run func(migrate.Set, *pgx.Conn) error) (err error) {
	set, err := f.set(args)
	if err != nil {
		return err
	}
	if f.databaseURL == "" {
		return errors.New("--database-url is empty: give it, or set DATABASE_URL")
	}
	conn, err := pgx.Connect(ctx, f.databaseURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return run(set, conn)
}

func newMigrateUp(f *migrateFlags) *cobra.Command {
	return &cobra.Command{
		Use:       "up [outbox|inbox]",
		Short:     "Run all pending migrations",
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.connect(cmd.Context(), args, func(set migrate.Set, conn *pgx.Conn) error {
				if err := set.Up(cmd.Context(), conn); err != nil {
					return err
				}
				return f.printStatus(cmd.Context(), cmd.OutOrStdout(), set, conn)
			})
		},
	}
}

func newMigrateDown(f *migrateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:       "down [outbox|inbox] --to VERSION --yes",
		Short:     "Go back to a version; 0 drops the tables with all events",
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.yes {
				return errors.New("this drops tables with their events: repeat with --yes")
			}
			return f.connect(cmd.Context(), args, func(set migrate.Set, conn *pgx.Conn) error {
				if err := set.Down(cmd.Context(), conn, f.to); err != nil {
					return err
				}
				return f.printStatus(cmd.Context(), cmd.OutOrStdout(), set, conn)
			})
		},
	}
	cmd.Flags().Int32Var(&f.to, "to", 0, "`version` to go back to")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "really do it")
	return cmd
}

func newMigrateStatus(f *migrateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:       "status [outbox|inbox]",
		Short:     "Print the database's version and what is pending",
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.connect(cmd.Context(), args, func(set migrate.Set, conn *pgx.Conn) error {
				return f.printStatus(cmd.Context(), cmd.OutOrStdout(), set, conn)
			})
		},
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func newMigrateSQL(f *migrateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:       "sql [outbox|inbox]",
		Short:     "Print the SQL of an empty database's migration, and the grants",
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := f.set(args)
			if err != nil {
				return err
			}
			sql, err := set.SQL(cmd.Context())
			if err != nil {
				return err
			}
			grants, err := set.Grants(f.roles)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), sql, "\n", grants)
			return err
		},
	}
	cmd.Flags().StringVar(&f.roles.Writer, "writer", "outbox_writer", "`role` of services that write events")
	cmd.Flags().StringVar(&f.roles.Relay, "relay", "outbox_relay", "`role` of the relay")
	cmd.Flags().StringVar(&f.roles.Consumer, "consumer", "inbox_consumer", "`role` of services that consume events")
	return cmd
}

func (f *migrateFlags) printStatus(ctx context.Context, w io.Writer, set migrate.Set, conn *pgx.Conn) error {
	st, err := set.Status(ctx, conn)
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(w).Encode(st)
	}
	_, err = fmt.Fprintf(w, "schema %s: version %d of %d\n", st.Schema, st.Current, st.Latest)
	for _, name := range st.Pending {
		_, err = fmt.Fprintln(w, "  pending:", name)
	}
	if len(st.Pending) > 0 {
		_, err = fmt.Fprintln(w, "run: relay migrate up")
	}
	return err
}
