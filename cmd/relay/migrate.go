package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/migrate"
)

// migrateFlags are shared by the migrate commands.
type migrateFlags struct {
	databaseURL string
	schema      string
	roles       migrate.Roles
	out         form
	grant       bool
	to          int32
	yes, dryRun bool
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
grants that "relay migrate sql" prints and "relay migrate up --grant" gives.`,
	}
	// The variable is no default of the flag: help prints those, and it has a password.
	cmd.PersistentFlags().StringVar(&f.databaseURL, "database-url", "", "Postgres URL `postgres://…`, where ${NAME} and ${file:/path} are replaced (environment: DATABASE_URL)")
	cmd.PersistentFlags().StringVar(&f.schema, "schema", "", "database schema (default: outbox or inbox)")
	cmd.AddCommand(newMigrateUp(f), newMigrateDown(f), newMigrateStatus(f), newMigrateSQL(f))
	for _, sub := range cmd.Commands() {
		f.out.flag(sub)
	}
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
		return migrate.Set{}, wrongUse("%q is not known: use outbox or inbox", args[0])
	}
}

func (f *migrateFlags) connect(ctx context.Context, args []string, run func(migrate.Set, *pgx.Conn) error) (err error) {
	set, err := f.set(args)
	if err != nil {
		return err
	}
	url := cmp.Or(f.databaseURL, os.Getenv("DATABASE_URL"))
	if url == "" {
		return wrongUse("--database-url is empty: give it, or set DATABASE_URL")
	}
	conn, err := connect(ctx, "--database-url", url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return run(set, conn)
}

func newMigrateUp(f *migrateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up [outbox|inbox]",
		Short: "Run all pending migrations",
		Long: `Run all pending migrations. Services, relays and consumers may go on meanwhile:
those of the previous release work on the new tables (docs/upgrading.md), so migrate
first and then start the new release.

With --grant the roles get what they need on the tables, new ones included. Repeating
that changes nothing.`,
		Example: `  relay migrate up --database-url postgres://owner@localhost:5432/shop
  relay migrate up --grant
  relay migrate up inbox --dry-run`,
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.connect(cmd.Context(), args, func(set migrate.Set, conn *pgx.Conn) error {
				if !f.dryRun {
					if err := set.Up(cmd.Context(), conn); err != nil {
						return err
					}
				}
				if f.grant && !f.dryRun {
					if err := f.giveGrants(cmd.Context(), set, conn); err != nil {
						return err
					}
				}
				return f.printStatus(cmd, set, conn)
			})
		},
	}
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only print what is pending")
	cmd.Flags().BoolVar(&f.grant, "grant", false, "give the roles their rights; they must exist")
	f.roleFlags(cmd)
	return cmd
}

func newMigrateDown(f *migrateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down [outbox|inbox] --to VERSION --yes",
		Short: "Go back to a version; 0 drops the tables with all events",
		Example: `  relay migrate down --to 0 --dry-run
  relay migrate down inbox --to 0 --yes`,
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.yes && !f.dryRun {
				return wrongUse("this drops tables with their events: repeat with --yes")
			}
			return f.connect(cmd.Context(), args, func(set migrate.Set, conn *pgx.Conn) error {
				if f.dryRun {
					return f.printDown(cmd, set, conn)
				}
				if err := set.Down(cmd.Context(), conn, f.to); err != nil {
					return err
				}
				return f.printStatus(cmd, set, conn)
			})
		},
	}
	cmd.Flags().Int32Var(&f.to, "to", 0, "`version` to go back to")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "really do it")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say from where to where")
	return cmd
}

func newMigrateStatus(f *migrateFlags) *cobra.Command {
	return &cobra.Command{
		Use:       "status [outbox|inbox]",
		Short:     "Print the database's version and what is pending",
		Example:   `  relay migrate status inbox --database-url postgres://owner@localhost:5432/inventory`,
		ValidArgs: []string{"outbox", "inbox"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.connect(cmd.Context(), args, func(set migrate.Set, conn *pgx.Conn) error {
				return f.printStatus(cmd, set, conn)
			})
		},
	}
}

func newMigrateSQL(f *migrateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:       "sql [outbox|inbox]",
		Short:     "Print the SQL of an empty database's migration, and the grants",
		Example:   `  relay migrate sql outbox --writer shop_service --relay shop_relay`,
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
			return f.out.print(cmd, map[string]string{"sql": sql, "grants": grants}, strings.TrimSuffix(sql+"\n"+grants, "\n"))
		},
	}
	f.roleFlags(cmd)
	return cmd
}

func (f *migrateFlags) printStatus(cmd *cobra.Command, set migrate.Set, conn *pgx.Conn) error {
	st, err := set.Status(cmd.Context(), conn)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("schema %s: version %d of %d", st.Schema, st.Current, st.Latest)
	for _, name := range st.Pending {
		text += "\n  pending: " + name
	}
	if len(st.Pending) > 0 {
		text += "\nrun: relay migrate up"
	}
	return f.out.print(cmd, st, text)
}

func (f *migrateFlags) printDown(cmd *cobra.Command, set migrate.Set, conn *pgx.Conn) error {
	st, err := set.Status(cmd.Context(), conn)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("schema %s: would go back from version %d to %d", st.Schema, st.Current, f.to)
	switch {
	case f.to >= st.Current:
		text = fmt.Sprintf("schema %s: version %d, nothing to do", st.Schema, st.Current)
	case f.to == 0:
		text += ", and drop the tables with all events"
	}
	return f.out.print(cmd, struct {
		Schema  string `json:"schema"`
		Current int32  `json:"current"`
		To      int32  `json:"to"`
		DryRun  bool   `json:"dry_run"`
	}{st.Schema, st.Current, f.to, true}, text)
}
