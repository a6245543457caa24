package main

import (
	"context"
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
	var out form
	cmd := &cobra.Command{
		Use:     "list --config relay.yaml",
		Short:   "List pipelines: how far behind, by whom published",
		Example: `  relay pipeline list --config relay.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				list, err := relay.Pipelines(cmd.Context(), pool, c.Database.Schema)
				if err != nil {
					return err
				}
				return out.print(cmd, list, pipelineTable(list))
			})
		},
	}
	at.flags(cmd)
	out.flag(cmd)
	return cmd
}

func newPipelineDrop() *cobra.Command {
	var at place
	var out form
	var yes, force, dryRun bool
	cmd := &cobra.Command{
		Use:   "drop NAME --config relay.yaml --yes",
		Short: "Forget a pipeline and its position",
		Long: `Forget a pipeline and its position. What it has not published it never will, and
events are no longer kept for it. Take it out of every relay's configuration first:
a relay that starts with it registers it anew. While a live relay holds the pipeline
drop refuses; --force takes it away from that relay, which then stops publishing it.
It also refuses while events of the pipeline are parked: redrive or discard them, or
lose them with --force.`,
		Example: `  relay pipeline drop rabbitmq --dry-run
  relay pipeline drop rabbitmq --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArg(at.pipelines),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && !dryRun {
				return wrongUse("this forgets the position of pipeline %q for good: repeat with --yes", args[0])
			}
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				r, err := dropPipeline(cmd.Context(), pool, c.Database.Schema, args[0], force, dryRun)
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
	cmd.Flags().BoolVar(&force, "force", false, "even if a live relay holds it or events are parked")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be given up")
	return cmd
}

type dropResult struct {
	Pipeline string              `json:"pipeline"`
	Dropped  bool                `json:"dropped"`
	DryRun   bool                `json:"dry_run"`
	Backlog  int64               `json:"backlog,omitempty"` // that it would never publish
	Parked   *relay.ParkedStatus `json:"parked,omitempty"`
}

func dropPipeline(ctx context.Context, pool *pgxpool.Pool, schema, name string, force, dryRun bool) (dropResult, error) {
	r := dropResult{Pipeline: name, Dropped: !dryRun, DryRun: dryRun}
	if !dryRun {
		return r, relay.DropPipeline(ctx, pool, schema, name, relay.DropOptions{Force: force})
	}
	list, err := relay.Pipelines(ctx, pool, schema)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(list, func(p relay.PipelineStatus) bool { return p.Name == name })
	if i < 0 {
		return r, fmt.Errorf("pipeline %q: %w", name, relay.ErrNoPipeline)
	}
	r.Backlog, r.Parked = list[i].Backlog, &list[i].Parked
	return r, nil
}

func (r dropResult) text() string {
	if !r.DryRun {
		return fmt.Sprintf("pipeline %s dropped", r.Pipeline)
	}
	return fmt.Sprintf("pipeline %s would be dropped: about %d events would not be published by it; parked: %s", r.Pipeline, r.Backlog, parkedCounts(*r.Parked))
}

func newPipelineFilter() *cobra.Command {
	var at place
	var out form
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "filter NAME --config relay.yaml",
		Short: "Store the configuration's filter of a pipeline",
		Long: `Store the configuration's filter of a pipeline in the database. A relay whose
filter is another one refuses to run: events that the filter leaves out count as
passed, so relays with different filters would lose each other's events. Stop every
relay that runs the pipeline first; while one does, filter refuses. The new filter
counts from the pipeline's position on: what the old one left out is not published.`,
		Example: `  relay pipeline filter kafka --dry-run
  relay pipeline filter kafka --config relay.yaml`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArg(at.pipelines),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				i := slices.IndexFunc(c.Pipelines, func(p pipelineConfig) bool { return p.Name == args[0] })
				if i < 0 {
					return wrongUse("pipeline %q is not in the configuration, which has its new filter", args[0])
				}
				r, err := changeFilter(cmd.Context(), pool, c.Database.Schema, args[0], c.Pipelines[i].filter(), dryRun)
				if err != nil {
					return err
				}
				return out.print(cmd, r, r.text())
			})
		},
	}
	at.flags(cmd)
	out.flag(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	return cmd
}

type filterResult struct {
	Pipeline string        `json:"pipeline"`
	Filter   relay.Filter  `json:"filter"`
	Before   *relay.Filter `json:"before,omitempty"` // of a dry run
	DryRun   bool          `json:"dry_run"`
}

func changeFilter(ctx context.Context, pool *pgxpool.Pool, schema, name string, f relay.Filter, dryRun bool) (filterResult, error) {
	r := filterResult{Pipeline: name, Filter: f, DryRun: dryRun}
	if !dryRun {
		return r, relay.ChangeFilter(ctx, pool, schema, name, f)
	}
	list, err := relay.Pipelines(ctx, pool, schema)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(list, func(p relay.PipelineStatus) bool { return p.Name == name })
	if i < 0 {
		return r, fmt.Errorf("pipeline %q: %w", name, relay.ErrNoPipeline)
	}
	r.Before = &list[i].Filter
	return r, nil
}

func (r filterResult) text() string {
	if r.DryRun {
		return fmt.Sprintf("pipeline %s publishes %s, and would publish %s", r.Pipeline, r.Before, r.Filter)
	}
	return fmt.Sprintf("pipeline %s publishes %s", r.Pipeline, r.Filter)
}
