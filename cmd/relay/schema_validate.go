package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

func newSchemaValidate() *cobra.Command {
	var payload, as, typ string
	var out form
	cmd := &cobra.Command{
		Use:   "validate PATH...",
		Short: "Are these valid schemas? Does a payload fit one?",
		Long: `Are these valid schemas, with all that they refer to? With --payload: do its data
fit the schema? As JSON (times in RFC 3339 or as numbers, a union's branch as its
plain value), or bare Avro bytes as binary, hex or base64.`,
		Example: `  relay schema validate schemas
  relay schema validate schemas/order.avsc --payload order.json
  echo 066f2d31 | relay schema validate schemas/order.avsc --payload - --as hex`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if payload != "" {
				return validatePayload(cmd, &out, args, payload, as, typ)
			}
			var errs []error
			for _, path := range args {
				errs = append(errs, validateSchemas(cmd, &out, path))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().StringVar(&payload, "payload", "", "`file` with one event's data; - is standard input")
	cmd.Flags().StringVar(&as, "as", "json", "what the payload is: json, binary, hex or base64")
	cmd.Flags().StringVar(&typ, "type", "", "full `name` of the payload's schema, if PATH has several")
	completeFlag(cmd, "as", choices("json", "binary", "hex", "base64"))
	out.flag(cmd)
	return cmd
}

// validResult is what is said of one schema, or of the payload that fits one.
type validResult struct {
	File    string `json:"file"`
	Name    string `json:"name,omitempty"`
	Valid   bool   `json:"valid"`
	Problem string `json:"problem,omitempty"`
}

func validateSchemas(cmd *cobra.Command, out *form, path string) error {
	s, err := openSource(path)
	if err != nil {
		if !out.json {
			annotate(cmd.OutOrStdout(), "error", path, 0, err.Error())
			return err
		}
		return errors.Join(err, out.print(cmd, validResult{File: path, Problem: err.Error()}, ""))
	}
	for _, name := range s.names {
		if err := out.print(cmd, validResult{File: s.file(name), Name: name, Valid: true}, fmt.Sprintf("ok    %s: %s", s.file(name), name)); err != nil {
			return err
		}
	}
	return nil
}

func validatePayload(cmd *cobra.Command, out *form, args []string, payload, as, typ string) error {
	if len(args) != 1 {
		return wrongUse("--payload needs one PATH")
	}
	s, err := openSource(args[0])
	if err != nil {
		return err
	}
	if typ, err = s.one(typ); err != nil {
		return err
	}
	codec, err := s.Codec(typ)
	if err != nil {
		return err
	}
	data, err := readInput(cmd.InOrStdin(), payload)
	if err != nil {
		return err
	}
	if as == "json" {
		_, err = codec.EncodeJSON(data)
	} else if data, err = unwrapText(data, as); err == nil {
		err = avro.Validate(data, codec.Schema())
	}
	if err != nil {
		return fmt.Errorf("the payload does not fit %s: %w", typ, err)
	}
	return out.print(cmd, validResult{File: s.file(typ), Name: typ, Valid: true}, "ok    the payload fits "+typ)
}

// readInput reads a file, or standard input for "-", up to what a codec reads.
func readInput(stdin io.Reader, name string) ([]byte, error) {
	const limit = 64 << 20
	r := stdin
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the user names the file
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return data, err
}

// unwrapText turns text into the bytes that it stands for.
func unwrapText(data []byte, as string) ([]byte, error) {
	text := strings.Join(strings.Fields(string(data)), "")
	switch as {
	case "binary":
		return data, nil
	case "hex":
		return hex.DecodeString(strings.TrimPrefix(strings.TrimPrefix(text, "0x"), `\x`)) // \x: as psql prints bytea
	case "base64":
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		return base64.RawStdEncoding.DecodeString(text)
	}
	return nil, &event.FieldError{Field: "--as", Value: as, Problem: "is not known", Hint: "use binary, hex or base64"}
}
