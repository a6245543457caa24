package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/relay"
)

type replayFlags struct {
	at           place
	pipeline, to string
	from, until  string
	list, json   bool
	cfg          relay.ReplayConfig
}

func newReplay() *cobra.Command {
	f := &replayFlags{}
	cmd := &cobra.Command{
		Use:   "replay --config relay.yaml --pipeline NAME --reason TEXT",
		Short: "Publish retained events again",
		Long: `Publish retained events again, in order per key and slowly, to where a pipeline
publishes or, with --to, to where another one does. Every message carries the header
"replayid". Consumers with an inbox swallow what they have handled; a new consumer
handles everything. Relays may run meanwhile.

What the destination's pipeline has not published yet, or has parked or discarded, is
left out: it would overtake earlier events of its key.

While the broker or a topic is in trouble it waits, and says for what. An event that
can never be published (too large, refused by its schema) is left out, and so are later
ones of its key unless the destination has block_key: false; they are listed at the
end, and the exit code is 1. Mend it and replay the keys (--key). After a hundred in a
run it stops.

How far it has come is stored in the database (--list). After Ctrl-C, a crash or such a
stop go on with --resume; the last few events may go out again. If events are truncated before the replay comes to them it ends and says which;
look with --dry-run first, and at the retention.`,
		Example: `  relay replay --pipeline kafka --from 2h --dry-run
  relay replay --pipeline kafka --from 2h --type shop.order.placed --reason "OPS-123"
  relay replay --resume 0199e6a4-7d3c-7c1e-9a54-1f0e4c6d2b7a`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				if f.list {
					return f.printList(cmd, pool, c)
				}
				return f.replay(cmd, pool, c)
			})
		},
	}
	flags := cmd.Flags()
	f.at.flags(cmd)
	flags.StringVar(&f.pipeline, "pipeline", "", "`name` of the pipeline whose events are published again")
	flags.StringVar(&f.to, "to", "", "`name` of the pipeline to whose destination they go (default: the same)")
	flags.StringVar(&f.from, "from", "", "only events written since this `time`: RFC 3339, or an age such as 2h")
	flags.StringVar(&f.until, "until", "", "only events written before this `time`")
	flags.StringArrayVar(&f.cfg.Where.Keys, "key", nil, "only this key; may be repeated")
	flags.StringArrayVar(&f.cfg.Where.Types, "type", nil, "only this event type; may be repeated")
	flags.StringArrayVar(&f.cfg.Where.Topics, "topic", nil, "only this topic, as written by the service; may be repeated")
	flags.IntVar(&f.cfg.Rate, "rate", 500, "at most so many events a second")
	flags.StringVar(&f.cfg.Reason, "reason", "", "why; required")
	flags.StringVar(&f.cfg.RequestedBy, "by", whoami(), "who")
	flags.BoolVar(&f.cfg.DryRun, "dry-run", false, "count by topic and type, publish nothing")
	flags.StringVar(&f.cfg.Resume, "resume", "", "go on with the replay of this `id`")
	flags.BoolVar(&f.list, "list", false, "list replays, newest first")
	flags.BoolVar(&f.json, "json", false, "print JSON, one object a line")
	completeFlag(cmd, "pipeline", f.at.pipelines)
	completeFlag(cmd, "to", f.at.pipelines)
	return cmd
}

func (f *replayFlags) replay(cmd *cobra.Command, pool *pgxpool.Pool, c config) (err error) {
	ctx, cfg := cmd.Context(), f.cfg
	if cfg.Where.From, err = moment("from", f.from); err != nil {
		return err
	}
	if cfg.Where.Until, err = moment("until", f.until); err != nil {
		return err
	}
	if cfg.Rate <= 0 {
		return wrongUse("--rate %d is not positive: events a second", cfg.Rate)
	}
	if cfg.Resume != "" {
		if err := f.stored(ctx, pool, c); err != nil {
			return err
		}
	}
	switch {
	case f.pipeline == "":
		return wrongUse("--pipeline is empty: name the pipeline whose events are published again")
	case cfg.Reason == "" && cfg.Resume == "" && !cfg.DryRun:
		return wrongUse("--reason is empty: say why, it is recorded")
	}
	cfg.Schema, cfg.Logger = c.Database.Schema, c.Log.logger()
	a := newAdapters(cfg.Logger)
	defer func() { err = errors.Join(err, a.Close()) }()
	rc, err := c.relay(a, cfg.Logger)
	if err != nil {
		return err
	}
	from, err := pipelineNamed(rc.Pipelines, "--pipeline", f.pipeline)
	if err != nil {
		return err
	}
	cfg.Pipeline = *from
	if f.to != "" {
		if cfg.To, err = pipelineNamed(rc.Pipelines, "--to", f.to); err != nil {
			return err
		}
	}
	p := &replayPrinter{out: cmd.OutOrStdout(), json: f.json, live: !f.json && terminal(cmd.OutOrStdout())}
	cfg.Progress = p.progress
	got, err := relay.Replay(ctx, pool, cfg)
	err = errors.Join(err, p.end(cfg, got, err))
	if err == nil && len(got.Refused) > 0 {
		err = fmt.Errorf("%d events were refused and %d later ones of their keys left out", len(got.Refused), got.Held)
	}
	return err
}

// stored finds out what the replay to be resumed publishes where.
func (f *replayFlags) stored(ctx context.Context, pool *pgxpool.Pool, c config) error {
	list, err := relay.Replays(ctx, pool, c.Database.Schema)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(r relay.ReplayInfo) bool { return r.ID == f.cfg.Resume })
	if i < 0 {
		return fmt.Errorf("--resume %q: %w: see relay replay --list", f.cfg.Resume, relay.ErrNoReplay)
	}
	f.pipeline, f.to = list[i].Pipeline, list[i].Destination
	return nil
}

func pipelineNamed(list []relay.Pipeline, flag, name string) (*relay.Pipeline, error) {
	var names []string
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
		names = append(names, list[i].Name)
	}
	return nil, wrongUse("%s %q is not a pipeline of the configuration: it has %q", flag, name, names)
}

func (f *replayFlags) printList(cmd *cobra.Command, pool *pgxpool.Pool, c config) error {
	list, err := relay.Replays(cmd.Context(), pool, c.Database.Schema)
	if err != nil {
		return err
	}
	if f.json {
		out := json.NewEncoder(cmd.OutOrStdout())
		for _, r := range list {
			if err := out.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable("id", "pipeline", "to", "state", "events", "refused", "held", "%", "updated", "by", "reason", "error")
	for _, r := range list {
		t.AppendRow(table.Row{
			r.ID, printable(r.Pipeline), printable(r.Destination), r.State, r.Published, len(r.Refused), r.Held, fmt.Sprintf("%.0f", 100*r.Part),
			r.UpdatedAt.UTC().Format(time.RFC3339), printable(r.RequestedBy), shorten(printable(r.Reason), 40), shorten(printable(r.Error), 60),
		})
	}
	text := "no replays"
	if len(list) > 0 {
		text = t.Render()
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
