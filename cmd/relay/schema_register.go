package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
)

func newSchemaRegister() *cobra.Command {
	f := &registerFlags{}
	cmd := &cobra.Command{
		Use:   "register PATH",
		Short: "Add schemas to a registry, freeze them as files, or store them in an outbox",
		Long: `Add schemas to what must be able to read them for ever. What may not follow the
earlier versions is refused. Doing it again changes nothing.

  --registry URL  to a registry
  --log URL       to the outbox in a Postgres, for services that are not in Go: it prints
                  the number for the column schema_fp of their events (Go services do
                  this themselves, in outbox.New). The role needs the writer's grants
  neither         as files name.vN.avsc beside them, to be committed`,
		Example: `  relay schema register schemas/order.avsc --registry https://registry:8081 --topic orders
  relay schema register schemas --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.log != "" && f.url != "" {
				return wrongUse("--log and --registry: choose one")
			}
			s, err := openSource(args[0])
			if err != nil {
				return err
			}
			if f.log != "" {
				return f.store(cmd, s)
			}
			return f.register(cmd, s)
		},
	}
	f.flags(cmd)
	f.subjectFlags(cmd)
	cmd.Flags().StringVar(&f.log, "log", "", "Postgres `URL` of an outbox that stores them; ${NAME} is replaced by the environment's")
	cmd.Flags().StringVar(&f.database, "log-schema", "outbox", "database schema of that outbox")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what would be added, and whether it may")
	f.out.flag(cmd)
	return cmd
}

type registerFlags struct {
	registryFlags

	log, database string
	dryRun        bool
	out           form
}

// registered is what has become of one schema.
type registered struct {
	Name        string `json:"name"`
	File        string `json:"file"`
	Subject     string `json:"subject,omitempty"`
	Version     int    `json:"version,omitempty"`
	ID          uint32 `json:"id,omitempty"`        // in the registry
	Fingerprint int64  `json:"schema_fp,omitempty"` // in the outbox
	DryRun      bool   `json:"dry_run"`
}

func (f *registerFlags) register(cmd *cobra.Command, s *source) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	if err := f.alone(s); err != nil {
		return err
	}
	for _, name := range s.names {
		next, err := s.Schema(name)
		if err != nil {
			return err
		}
		var r schema.Registry = s.Files
		subject := name
		if client != nil {
			r = client
			if subject, err = f.subjectOf(next); err != nil {
				return err
			}
		}
		verdict, err := schema.Check(cmd.Context(), r, subject, next, avro.Compare)
		if err == nil {
			err = verdict.Error()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.file(name), err)
		}
		result := registered{Name: name, File: s.file(name), DryRun: f.dryRun}
		if client != nil {
			result.Subject = subject
		}
		if !f.dryRun {
			v, err := r.Register(cmd.Context(), subject, next)
			if err != nil {
				return fmt.Errorf("%s: %w", s.file(name), err)
			}
			result.Version, result.ID = v.Number, v.ID
		}
		if err := f.out.print(cmd, result, result.text()); err != nil {
			return err
		}
	}
	return nil
}

func (r registered) text() string {
	text := fmt.Sprintf("ok    %s: %s", r.File, r.Name)
	if r.Subject != "" {
		text += ", subject " + r.Subject
	}
	switch {
	case r.DryRun:
		text += ": may be added"
	case r.Fingerprint != 0:
		text += fmt.Sprintf(": schema_fp %d", r.Fingerprint)
	case r.Subject != "":
		text += fmt.Sprintf(": version %d, id %d", r.Version, r.ID)
	default:
		text += fmt.Sprintf(": version %d", r.Version)
	}
	return text
}

func (f *registerFlags) store(cmd *cobra.Command, s *source) (err error) {
	ctx := cmd.Context()
	conn, err := connect(ctx, "--log", f.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	table := pgx.Identifier{f.database, "schema"}.Sanitize()
	for _, name := range s.names {
		next, err := s.Schema(name)
		if err != nil {
			return err
		}
		result := registered{Name: name, File: s.file(name), Fingerprint: next.Fingerprint(), DryRun: f.dryRun}
		if !f.dryRun {
			if _, err := conn.Exec(ctx, "INSERT INTO "+table+" (fp, format, text, content_type) VALUES ($1, $2, $3, $4) ON CONFLICT (fp) DO NOTHING",
				next.Fingerprint(), next.Format, next.Text, next.ContentType); err != nil {
				return fmt.Errorf("store the schema of %s: %w", name, err)
			}
		}
		if err := f.out.print(cmd, result, result.text()); err != nil {
			return err
		}
	}
	return nil
}
