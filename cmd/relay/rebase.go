package main

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/relay"
)

func newRebase() *cobra.Command {
	var at place
	var out form
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "rebase --config relay.yaml --yes",
		Short: "Accept an outbox that was restored or copied into another database",
		Long: `Accept an outbox that was restored or copied into another database.

Transaction ids mean something else there, so the relay refuses such an outbox:
its positions would skip events silently. rebase gives every event a place before
or after one new position: what all pipelines had published stays published,
everything else is published again from the start, which consumers with an inbox
swallow. Stop all relays and writers of the database first.`,
		Example: `  relay rebase --dry-run
  relay rebase --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes && !dryRun {
				return wrongUse("this rewrites the positions of all pipelines: stop relays and writers, then repeat with --yes")
			}
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				r, err := rebase(cmd, pool, c, dryRun)
				if err != nil {
					return err
				}
				return out.print(cmd, r, r.text())
			})
		},
	}
	at.flags(cmd)
	out.flag(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really do it")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be rewritten")
	return cmd
}

type rebaseResult struct {
	Rebased   bool     `json:"rebased"`
	DryRun    bool     `json:"dry_run"`
	Pipelines []string `json:"pipelines,omitempty"` // whose positions would be new
}

func rebase(cmd *cobra.Command, pool *pgxpool.Pool, c config, dryRun bool) (rebaseResult, error) {
	if !dryRun {
		return rebaseResult{Rebased: true}, relay.Rebase(cmd.Context(), pool, c.Database.Schema)
	}
	r := rebaseResult{DryRun: true}
	list, err := relay.Pipelines(cmd.Context(), pool, c.Database.Schema)
	for _, p := range list {
		r.Pipelines = append(r.Pipelines, p.Name)
	}
	return r, err
}

func (r rebaseResult) text() string {
	if r.DryRun {
		return fmt.Sprintf("the positions of %d pipelines would be rewritten: %s", len(r.Pipelines), printable(strings.Join(r.Pipelines, ", ")))
	}
	return "rebased; start the relay again"
}
