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
	var f registryFlags
	var log, database string
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
  relay schema register schemas`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if log != "" && f.url != "" {
				return errors.New("--log and --registry: choose one")
			}
			s, err := openSource(args[0])
			if err != nil {
				return err
			}
			if log != "" {
				return storeSchemas(cmd, s, log, database)
			}
			return f.register(cmd, s)
		},
	}
	f.flags(cmd)
	f.subjectFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "Postgres `URL` of an outbox that stores them; ${NAME} is replaced by the environment's")
	cmd.Flags().StringVar(&database, "log-schema", "outbox", "database schema of that outbox")
	return cmd
}

func (f *registryFlags) register(cmd *cobra.Command, s *source) error {
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
		v, err := r.Register(cmd.Context(), subject, next)
		if err != nil {
			return fmt.Errorf("%s: %w", s.file(name), err)
		}
		if client != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "ok    %s: %s, subject %s: version %d, id %d\n", s.file(name), name, subject, v.Number, v.ID)
		} else {
			fmt.Fprintf(cmd.OutOrStdout(), "ok    %s: %s: version %d\n", s.file(name), name, v.Number)
		}
	}
	return nil
}

func storeSchemas(cmd *cobra.Command, s *source, url, database string) (err error) {
	ctx := cmd.Context()
	if url, err = expand(url); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	table := pgx.Identifier{database, "schema"}.Sanitize()
	for _, name := range s.names {
		next, err := s.Schema(name)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "INSERT INTO "+table+" (fp, format, text, content_type) VALUES ($1, $2, $3, $4) ON CONFLICT (fp) DO NOTHING",
			next.Fingerprint(), next.Format, next.Text, next.ContentType); err != nil {
			return fmt.Errorf("store the schema of %s: %w", name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "ok    %s: %s: schema_fp %d\n", s.file(name), name, next.Fingerprint())
	}
	return nil
}
