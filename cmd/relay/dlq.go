package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// dlqFlags are shared by the dlq commands.
type dlqFlags struct {
	at                 place
	inbox              string
	pipeline, consumer string
	filter             dlqFilter
	since, until       string
	json               bool
	limit              int
	after              int64
	action             dlqAction
	all                bool
	wait               time.Duration
	hide               []string
}

func newDLQ() *cobra.Command {
	f := &dlqFlags{}
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, show, redrive, discard or export events that could not be published or handled",
		Long: `Work on the events that were put aside: in a service's outbox those that a pipeline
could not publish, in a consumer's inbox (--inbox) those that its handlers failed on.
Both are rows in the service's own database; relays and consumers may run or not.

  dead      waits for you: redrive it when its cause is mended, or discard it
            (moving, moved: as dead, with a copy at the broker)
  blocked   waits behind an earlier event of its topic and key, and follows by itself
  retrying  tried again by itself, as soon as somebody runs who can
  redriven  handled in the end (an outbox deletes what was published)
  discarded given up

Which events: of the outbox of --config (and --database, where it lists several), or
with --inbox of a consumer: a name from the list "inboxes" of the configuration, or a
Postgres URL, for which no file is needed ('${NAME}' in it is taken from the
environment).

At three in the morning:
  relay dlq list --inbox inventory               what is there, and why
  relay dlq show 17 --inbox inventory            one of them, with its payload
  relay dlq redrive --inbox inventory --type shop.order.placed --reason "stock db is back"
  relay dlq discard --inbox inventory --n 17 --reason "test order, see OPS-123"`,
	}
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
	cmd.PersistentFlags().StringSliceVar(&f.hide, "hide", nil, "`fields` of payloads not to show, beside those of the configuration: name, path.to.name, or all")
	cmd.AddCommand(newDLQList(f), newDLQShow(f), newDLQExport(f),
		newDLQAction(f, "redrive", "Have dead events published or handled again, and what waits behind them, in order", `
An outbox's events are published again by its relays. A consumer's are handled again
by its running inboxes, from the stored rows, for this consumer alone; effect and row
change together, so each takes effect once. New events of a key wait until those
before them are through. One that fails again is tried as often as a new one, and is
dead again; its attempts count on, and what is behind it stays there.

The command marks the events and then waits while they are dealt with. When nothing
has happened for --wait it says so and ends with 1 (is the consumer running?), and also
when some are dead again. The redrive goes on without it.`),
		newDLQAction(f, "discard", "Give events up for good; what waits behind them goes on", `
Events that are being published or handled at this moment are left alone; the command
says how many, and ends with 1. The rows stay on record.`))
	for _, sub := range cmd.Commands() {
		f.at.flags(sub)
		sub.Flags().StringVar(&f.inbox, "inbox", "", "a consumer's inbox: `name` in the configuration, or a Postgres URL (default: the outbox)")
		completeFlag(sub, "inbox", f.at.inboxes)
	}
	return cmd
}

func (f *dlqFlags) filters(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Int64Var(&f.filter.N, "n", 0, "only the event with this `number`")
	flags.StringVar(&f.pipeline, "pipeline", "", "only of this pipeline (outbox)")
	flags.StringVar(&f.consumer, "consumer", "", "only of this consumer (inbox)")
	flags.StringVar(&f.filter.Topic, "topic", "", "only of this topic; in an outbox as written by the service")
	flags.StringVar(&f.filter.Type, "type", "", "only of this type")
	flags.StringVar(&f.filter.Key, "key", "", "only of this key")
	flags.StringVar(&f.filter.Source, "source", "", "only of this source")
	flags.StringVar(&f.filter.ID, "id", "", "only with this event id")
	flags.StringVar(&f.filter.State, "state", "", "only in this state: dead, blocked, retrying, discarded, …")
	flags.StringVar(&f.filter.Class, "class", "", "only failures of this class: attempts, permanent, undecodable, …; in an outbox destination, rejected, unavailable")
	flags.StringVar(&f.filter.Reason, "reason-like", "", "only failures whose text contains `text`")
	flags.StringVar(&f.since, "since", "", "only put aside since this `time`: RFC 3339, or an age such as 2h")
	flags.StringVar(&f.until, "until", "", "only put aside before this `time`")
	completeFlag(cmd, "pipeline", f.at.pipelines)
	completeFlag(cmd, "state", choices("dead", "blocked", "retrying", "redriven", "discarded", "moving", "moved"))
}

// complete checks the filter and fills in what is not a plain flag.
func (f *dlqFlags) complete() (err error) {
	switch {
	case f.inbox != "" && f.pipeline != "":
		return wrongUse("--pipeline is of an outbox: leave it or --inbox out")
	case f.inbox != "" && f.at.database != "":
		return wrongUse("--database is of an outbox: leave it or --inbox out")
	case f.inbox == "" && f.consumer != "":
		return wrongUse("--consumer is of an inbox: say which with --inbox")
	}
	f.filter.Owner = f.pipeline + f.consumer
	if f.filter.Since, err = moment("since", f.since); err != nil {
		return err
	}
	f.filter.Until, err = moment("until", f.until)
	return err
}

func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-age), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, wrongUse("--%s: %q is neither a time such as 2026-01-31T12:00:00Z nor an age such as 2h", flag, text)
	}
	return at, nil
}

func newDLQList(f *dlqFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [--inbox NAME] [filters]",
		Short: "List events in the order in which they were put aside",
		Example: `  relay dlq list
  relay dlq list --inbox inventory --state dead --since 2h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.on(cmd.Context(), func(s deadStore) error {
				list, err := s.list(cmd.Context(), f.filter, f.after, f.limit)
				if err != nil {
					return err
				}
				if f.json {
					out := json.NewEncoder(cmd.OutOrStdout())
					for _, l := range list {
						if err := out.Encode(l); err != nil {
							return err
						}
					}
					return nil
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), letterTable(s.owner(), list, f.limit))
				return err
			})
		},
	}
	f.filters(cmd)
	cmd.Flags().IntVar(&f.limit, "limit", 100, "list at most this many")
	cmd.Flags().Int64Var(&f.after, "after", 0, "go on after the event with this `number`")
	return cmd
}

func newDLQShow(f *dlqFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "show N [--inbox NAME]",
		Short: "Print one event with its headers and decoded payload",
		Example: `  relay dlq show 17
  relay dlq show 17 --inbox inventory --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n int64
			if _, err := fmt.Sscanf(args[0], "%d", &n); err != nil || fmt.Sprint(n) != args[0] {
				return wrongUse("%q is not an event's number: see relay dlq list", args[0])
			}
			return f.on(cmd.Context(), func(s deadStore) error {
				l, err := s.show(cmd.Context(), n)
				if err != nil {
					return err
				}
				if f.json {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(l)
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), letterText(l))
				return err
			})
		},
	}
}

func newDLQAction(f *dlqFlags, name, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " [--inbox NAME] --reason TEXT (filters | --all)",
		Short: short,
		Long: short + `.

Choose events with the filters, which must all match, or take --all. Who did it, when
and why is recorded. --dry-run only counts.
` + strings.TrimRight(long, "\n"),
		Example: fmt.Sprintf(`  relay dlq %[1]s --pipeline kafka --type shop.order.placed --dry-run
  relay dlq %[1]s --inbox inventory --n 17 --reason "mended, see OPS-123"`, name),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(); err != nil {
				return err
			}
			switch {
			case f.filter == (dlqFilter{}) && !f.all:
				return wrongUse("no filter: choose events (see --help), or say --all")
			case f.action.Reason == "" && !f.action.DryRun:
				return wrongUse("--reason is empty: say why, it is recorded")
			case f.action.Rate < 0:
				return wrongUse("--rate %d is negative: events a second, 0 for no limit", f.action.Rate)
			}
			return f.on(cmd.Context(), func(s deadStore) error {
				p := &dlqPrinter{out: cmd.OutOrStdout(), json: f.json, live: !f.json && terminal(cmd.OutOrStdout()), name: name}
				return p.act(cmd.Context(), s, f)
			})
		},
	}
	f.filters(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.action.Reason, "reason", "", "why; required")
	flags.StringVar(&f.action.By, "by", whoami(), "who")
	flags.BoolVar(&f.action.DryRun, "dry-run", false, "only count")
	flags.IntVar(&f.action.Rate, "rate", 0, "at most so many events a second, without those that follow behind them (default: no limit)")
	flags.BoolVar(&f.all, "all", false, "all events that wait")
	if name == "redrive" {
		flags.DurationVar(&f.wait, "wait", 10*time.Second, "give up waiting when nothing has happened for so long; 0: do not wait at all")
	}
	return cmd
}

// whoami is the default of --by.
func whoami() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
