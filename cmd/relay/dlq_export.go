package main

import (
	"bufio"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func newDLQExport(f *dlqFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [--inbox NAME] [filters] > FILE",
		Short: "Print events whole, as JSON, one a line",
		Long: `Print events whole, as JSON, one a line: every field, the payload in base64 and, where
it can be read, decoded; where fields are hidden, decoded only and without them. One event is in memory at a time. Nothing is changed.`,
		Example: `  relay dlq export --inbox inventory --state dead > dead.jsonl`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.on(cmd.Context(), func(s deadStore) error {
				w := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
				out, n := json.NewEncoder(w), 0
				p := &dlqPrinter{out: cmd.ErrOrStderr(), live: terminal(cmd.ErrOrStderr()) && !terminal(cmd.OutOrStdout())}
				err := s.export(cmd.Context(), f.filter, func(l letter) error {
					if n++; n%1000 == 0 {
						p.line("%d events exported", n)
					}
					return out.Encode(l)
				})
				if flushed := w.Flush(); err == nil {
					err = flushed
				}
				p.endLine()
				if err != nil {
					return fmt.Errorf("%w (after %d events)", err, n)
				}
				return nil
			})
		},
	}
	f.filters(cmd)
	return cmd
}
