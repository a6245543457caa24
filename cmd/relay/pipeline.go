package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/relay"
)

func newPipeline() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pipeline",
		Short: "List the pipelines that a database knows, drop one or change its filter",
		Long: `List the pipelines that a database knows, drop one or change its filter.

A pipeline is registered in the database when a relay first runs it. It stays there
when it is taken out of the configuration, and no event is truncated that it has not
published: drop what is no longer wanted.`,
	}
	cmd.AddCommand(newPipelineList(), newPipelineDrop(), newPipelineFilter())
	return cmd
}

func newPipelineList() *cobra.Command {
	var at place
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list --config relay.yaml",
		Short: "List pipelines: how far behind, by whom published",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				list, err := relay.Pipelines(cmd.Context(), pool, c.Database.Schema)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), pipelineTable(list))
				return err
			})
		},
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newPipelineDrop() *cobra.Command {
	var at place
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "drop NAME --config relay.yaml --yes",
		Short: "Forget a pipeline and its position",
		Long: `Forget a pipeline and its position. What it has not published it never will, and
events are no longer kept for it. Take it out of every relay's configuration first:
a relay that starts with it registers it anew. While a live relay holds the pipeline
drop refuses; --force takes it away from that relay, which then stops publishing it.
It also refuses while events of the pipeline are parked: redrive or discard them, or
lose them with --force.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return fmt.Errorf("this forgets the position of pipeline %q for good: repeat with --yes", args[0])
			}
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				if err := relay.DropPipeline(cmd.Context(), pool, c.Database.Schema, args[0], relay.DropOptions{Force: force}); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "pipeline %s dropped\n", args[0])
				return err
			})
		},
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really do it")
	cmd.Flags().BoolVar(&force, "force", false, "even if a live relay holds it or events are parked")
	return cmd
}

func newPipelineFilter() *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "filter NAME --config relay.yaml",
		Short: "Store the configuration's filter of a pipeline",
		Long: `Store the configuration's filter of a pipeline in the database. A relay whose
filter is another one refuses to run: events that the filter leaves out count as
passed, so relays with different filters would lose each other's events. Stop every
relay that runs the pipeline first; while one does, filter refuses. The new filter
counts from the pipeline's position on: what the old one left out is not published.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				i := slices.IndexFunc(c.Pipelines, func(p pipelineConfig) bool { return p.Name == args[0] })
				if i < 0 {
					return fmt.Errorf("pipeline %q is not in the configuration, which has its new filter", args[0])
				}
				f := c.Pipelines[i].filter()
				if err := relay.ChangeFilter(cmd.Context(), pool, c.Database.Schema, args[0], f); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "pipeline %s publishes %s\n", args[0], f)
				return err
			})
		},
	}
	at.flags(cmd)
	return cmd
}
