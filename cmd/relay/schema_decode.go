package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/registry"
)

type decodeFlags struct {
	registryFlags

	at            place
	as, path, typ string
	event         string
	out           form
	hide          []string // of the configuration that names the outbox
}

func newSchemaDecode() *cobra.Command {
	f := &decodeFlags{}
	cmd := &cobra.Command{
		Use:   "decode [DATA]",
		Short: "Show what a payload says, as JSON",
		Long: `Show what a payload says, as JSON. DATA is hex or base64; without it the payload comes
from standard input, or with --event from the log.

How it is framed is found by its first bytes:
  00 and an id        Confluent's wire format, as on Kafka: needs --registry
  C3 01               Avro's single-object encoding: needs --schema, with all versions
  anything else       bare, of the schema --schema`,
		Example: `  relay schema decode 000000002a066f2d31 --as hex --registry https://registry:8081
  kcat -C -t orders -c 1 -D '' | relay schema decode --registry https://registry:8081
  relay schema decode --event 0199e6a4-7d3c-7c1e-9a54-1f0e4c6d2b7a --config relay.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.event != "" && len(args) > 0 {
				return wrongUse("--event and DATA: choose one")
			}
			return f.run(cmd, args)
		},
	}
	f.flags(cmd)
	f.at.flags(cmd)
	cmd.Flags().StringVar(&f.as, "as", "", "what the input is: binary (default of standard input), hex (default of DATA) or base64")
	cmd.Flags().StringVar(&f.path, "schema", "", "`PATH` of an .avsc file or a folder of them")
	cmd.Flags().StringVar(&f.typ, "type", "", "full `name` of a bare payload's schema, if --schema has several")
	cmd.Flags().StringVar(&f.event, "event", "", "`id` of an event in the outbox that --config names")
	completeFlag(cmd, "as", choices("binary", "hex", "base64"))
	f.out.flag(cmd)
	return cmd
}

func (f *decodeFlags) run(cmd *cobra.Command, args []string) error {
	payload, writer, err := f.input(cmd, args)
	if err != nil {
		return err
	}
	if writer.IsZero() {
		if writer, payload, err = f.open(cmd.Context(), payload); err != nil {
			return err
		}
	}
	doc, err := readable(writer, payload)
	if err != nil {
		return err
	}
	if doc, err = f.conceal(doc); err != nil {
		return err
	}
	name, err := schema.RecordName(writer)
	if err == nil && !f.out.json {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", writer.Format, name)
	}
	return f.out.print(cmd, decodedPayload{writer.Format, name, doc}, string(doc))
}

// decodedPayload is a payload with what it was written with.
type decodedPayload struct {
	Format string          `json:"format"`
	Schema string          `json:"schema,omitempty"` // name of its record
	Data   json.RawMessage `json:"data"`
}

// readable is the payload as indented JSON.
func readable(writer event.Schema, payload []byte) ([]byte, error) {
	var doc json.RawMessage = payload
	if writer.Format == asAvro {
		var err error
		if doc, err = new(decoder).avro(writer, payload); err != nil {
			return nil, err
		}
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("the payload has format %q, is no JSON and cannot be shown: %w", writer.Format, err)
	}
	return out, nil
}

// conceal takes out what the configuration hides.
func (f *decodeFlags) conceal(doc []byte) ([]byte, error) {
	rules, err := hideRules(f.hide, nil)
	if err != nil || rules.Empty() {
		return doc, err
	}
	shown, err := rules.JSON(doc)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(shown, "", "  ")
}

// input returns the payload, and its schema where the log has it.
func (f *decodeFlags) input(cmd *cobra.Command, args []string) (payload []byte, writer event.Schema, err error) {
	switch {
	case f.event != "":
		err = f.at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
			f.hide = c.Hide
			payload, writer, err = loggedEvent(cmd.Context(), pool, c.Database.Schema, f.event)
			return err
		})
		return payload, writer, err
	case len(args) > 0:
		if f.as == "" {
			f.as = "hex"
		}
		payload = []byte(args[0])
	default:
		if f.as == "" {
			f.as = "binary"
		}
		if payload, err = readInput(cmd.InOrStdin(), "-"); err != nil {
			return nil, writer, err
		}
	}
	if payload, err = unwrapText(payload, f.as); err != nil {
		return nil, writer, fmt.Errorf("the input is not %s: %w", f.as, err)
	}
	return payload, writer, nil
}

// loggedEvent finds an event in the log, or among the parked ones. It looks at the
// whole log, which has no index for it.
func loggedEvent(ctx context.Context, pool *pgxpool.Pool, database, id string) ([]byte, event.Schema, error) {
	var s event.Schema
	if _, err := uuid.Parse(id); err != nil {
		return nil, s, wrongUse("--event %q is not a UUID", id)
	}
	if database == "" {
		database = "outbox"
	}
	table := func(name string) string { return pgx.Identifier{database, name}.Sanitize() }
	var payload []byte
	err := pool.QueryRow(ctx, `SELECT e.payload, coalesce(s.format, 'json'), coalesce(s.text, ''), coalesce(s.content_type, '') FROM (
  SELECT payload, schema_fp FROM `+table("event")+` WHERE event_id = $1::uuid
  UNION ALL SELECT payload, schema_fp FROM `+table("parked")+` WHERE event_id = $1::uuid LIMIT 1) e
LEFT JOIN `+table("schema")+` s ON s.fp = e.schema_fp`, id).Scan(&payload, &s.Format, &s.Text, &s.ContentType)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = fmt.Errorf("event %s is not in the log any more, or never was", id)
	case err == nil && payload == nil:
		err = fmt.Errorf("event %s is a tombstone: it has no payload", id)
	}
	return payload, s, err
}

// open takes the frame off.
func (f *decodeFlags) open(ctx context.Context, payload []byte) (event.Schema, []byte, error) {
	var files *source
	if f.path != "" {
		var err error
		if files, err = openSource(f.path); err != nil {
			return event.Schema{}, nil, err
		}
	}
	client, err := f.client()
	switch {
	case err != nil:
		return event.Schema{}, nil, err
	case client != nil:
		return registry.Confluent(client).Open(ctx, "", payload)
	case files != nil && len(payload) >= 10 && payload[0] == 0xc3 && payload[1] == 1:
		return files.SingleObject().Open(ctx, "", payload)
	case files != nil:
		name, err := files.one(f.typ)
		if err != nil {
			return event.Schema{}, nil, err
		}
		s, err := files.Schema(name)
		return s, payload, err
	case json.Valid(payload):
		return event.Schema{Format: asJSON}, payload, nil
	}
	hint := "give its schema (--schema) or its registry (--registry)"
	switch {
	case len(payload) > 5 && payload[0] == 0:
		hint = fmt.Sprintf("it may be Confluent's wire format with schema id %d: give its registry (--registry)", binary.BigEndian.Uint32(payload[1:]))
	case len(payload) > 10 && payload[0] == 0xc3 && payload[1] == 1:
		hint = fmt.Sprintf("it is Avro's single-object encoding, schema fingerprint %016x: give the folder with its schema (--schema)", binary.LittleEndian.Uint64(payload[2:]))
	}
	return event.Schema{}, nil, errors.New("nobody can tell what the payload is: " + hint)
}
