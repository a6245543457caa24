package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/relay"
)

// dlqFlags are shared by the dlq commands.
type dlqFlags struct {
	at           place
	filter       relay.ParkedFilter
	since, until string
	json         bool
	limit        int
	after        int64
	action       relay.ParkedAction
	all          bool
}

func newDLQ() *cobra.Command {
	f := &dlqFlags{}
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, redrive or discard events that could not be published",
		Long: `List, redrive or discard the events that a pipeline could not publish and has parked
in the service's database. Relays may run or not.

  retrying  the relay tries again by itself
  blocked   waits behind an earlier event of its topic and key
  dead      waits for you: redrive it when its cause is mended, or discard it`,
	}
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
	cmd.AddCommand(newDLQList(f), newDLQShow(f),
		newDLQAction(f, "redrive", "Publish dead events again, and what waits behind them, in order"),
		newDLQAction(f, "discard", "Give events up for good; what waits behind them goes on"))
	for _, sub := range cmd.Commands() {
		f.at.flags(sub)
	}
	return cmd
}

func (f *dlqFlags) filters(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Int64Var(&f.filter.N, "n", 0, "only the event with this `number`")
	flags.StringVar(&f.filter.Pipeline, "pipeline", "", "only of this pipeline")
	flags.StringVar(&f.filter.Topic, "topic", "", "only of this topic, as written by the service")
	flags.StringVar(&f.filter.Type, "type", "", "only of this type")
	flags.StringVar(&f.filter.Key, "key", "", "only of this key")
	flags.StringVar(&f.filter.State, "state", "", "only in this state: retrying, blocked, dead or discarded")
	flags.StringVar(&f.filter.Class, "class", "", "only failures of this class: destination, rejected or unavailable")
	flags.StringVar(&f.filter.Reason, "reason-like", "", "only failures whose text contains `text`")
	flags.StringVar(&f.since, "since", "", "only parked since this `time`: RFC 3339, or an age such as 2h")
	flags.StringVar(&f.until, "until", "", "only parked before this `time`")
}

// times completes the filter.
func (f *dlqFlags) times() (err error) {
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
		return at, fmt.Errorf("--%s: %q is neither a time such as 2026-01-31T12:00:00Z nor an age such as 2h", flag, text)
	}
	return at, nil
}

func newDLQList(f *dlqFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list --config relay.yaml",
		Short: "List parked events in the order of parking",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.times(); err != nil {
				return err
			}
			return f.at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				list, err := relay.Parked(cmd.Context(), pool, c.Database.Schema, f.filter, f.after, f.limit)
				if err != nil {
					return err
				}
				if f.json {
					out := json.NewEncoder(cmd.OutOrStdout())
					for _, e := range list {
						if err := out.Encode(e); err != nil {
							return err
						}
					}
					return nil
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), parkedTable(list, f.limit))
				return err
			})
		},
	}
	f.filters(cmd)
	cmd.Flags().IntVar(&f.limit, "limit", 100, "list at most this many")
	cmd.Flags().Int64Var(&f.after, "after", 0, "go on after the event with this `number`")
	return cmd
}

func parkedTable(list []relay.ParkedEvent, limit int) string {
	if len(list) == 0 {
		return "no parked events"
	}
	t := newTable("n", "pipeline", "state", "topic", "key", "type", "attempts", "parked", "reason")
	for _, e := range list {
		t.AppendRow(table.Row{
			e.N, printable(e.Pipeline), e.State, printable(e.Topic), printable(e.Key), printable(e.Type), e.Attempts,
			e.ParkedAt.UTC().Format(time.RFC3339), shorten(printable(e.Reason), 60),
		})
	}
	text := t.Render()
	if len(list) == limit {
		text += fmt.Sprintf("\nperhaps more: --after %d", list[len(list)-1].N)
	}
	return text
}

func shorten(s string, runes int) string {
	if r := []rune(s); len(r) > runes {
		return string(r[:runes-1]) + "…"
	}
	return s
}

// printable keeps what others wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '·'
		}
		return r
	}, s)
}

func newDLQShow(f *dlqFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "show N --config relay.yaml",
		Short: "Print one parked event with its headers and payload",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n int64
			if _, err := fmt.Sscanf(args[0], "%d", &n); err != nil || fmt.Sprint(n) != args[0] {
				return fmt.Errorf("%q is not an event's number: see relay dlq list", args[0])
			}
			return f.at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				e, err := relay.ShowParked(cmd.Context(), pool, c.Database.Schema, n)
				if err != nil {
					return err
				}
				if f.json {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(e)
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), parkedText(e))
				return err
			})
		},
	}
}

func parkedText(e relay.ParkedEvent) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-13s %s\n", name, printable(value))
		}
	}
	line("n", fmt.Sprint(e.N))
	line("pipeline", e.Pipeline)
	line("state", e.State)
	line("event id", e.EventID)
	line("source", e.Source)
	line("type", e.Type)
	line("topic", e.Topic)
	line("destination", e.Destination)
	line("key", e.Key)
	line("class", e.Class)
	line("reason", e.Reason)
	line("attempts", fmt.Sprint(e.Attempts))
	if e.MayBeOut {
		line("may be out", "an attempt is under way, or ended without an answer: the broker may have the event")
	}
	line("parked at", e.ParkedAt.UTC().Format(time.RFC3339))
	if !e.NextAttemptAt.IsZero() {
		line("next attempt", e.NextAttemptAt.UTC().Format(time.RFC3339))
	}
	if e.Action != "" {
		line(e.Action, fmt.Sprintf("%s by %s: %s", e.ActionAt.UTC().Format(time.RFC3339), e.ActionBy, e.ActionReason))
	}
	line("headers", string(e.Headers))
	switch {
	case e.Payload == nil:
		line("payload", "none (a tombstone)")
	case utf8.Valid(e.Payload):
		line("payload", string(e.Payload))
	default:
		line("payload", fmt.Sprintf("%d bytes: %x", len(e.Payload), e.Payload))
	}
	return b.String()
}

func newDLQAction(f *dlqFlags, name, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " --config relay.yaml --reason TEXT (filters | --all)",
		Short: short,
		Long: short + `.

Choose events with the filters, which must all match, or take --all. The reason and
who gave it are recorded in the table parked_action. --dry-run only counts.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.times(); err != nil {
				return err
			}
			if f.filter == (relay.ParkedFilter{}) && !f.all {
				return errors.New("no filter: choose events (see --help), or say --all")
			}
			if f.action.Reason == "" && !f.action.DryRun {
				return errors.New("--reason is empty: say why, it is recorded")
			}
			return f.at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				act := relay.Redrive
				if name == "discard" {
					act = relay.Discard
				}
				n, err := act(cmd.Context(), pool, c.Database.Schema, f.filter, f.action)
				if err != nil && !errors.Is(err, relay.ErrBeingPublished) { // the others are done
					return err
				}
				if f.json {
					return errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"action": name, "events": n, "dry_run": f.action.DryRun}))
				}
				verb := map[string]string{"redrive": "redriven", "discard": "discarded"}[name]
				if f.action.DryRun {
					verb = "would be " + verb
				}
				_, printed := fmt.Fprintf(cmd.OutOrStdout(), "%d events %s\n", n, verb)
				return errors.Join(err, printed)
			})
		},
	}
	f.filters(cmd)
	cmd.Flags().StringVar(&f.action.Reason, "reason", "", "why; required")
	cmd.Flags().StringVar(&f.action.By, "by", whoami(), "who")
	cmd.Flags().BoolVar(&f.action.DryRun, "dry-run", false, "only count")
	cmd.Flags().BoolVar(&f.all, "all", false, "all parked events")
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
