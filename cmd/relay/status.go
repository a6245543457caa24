package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/relay"
)

func newStatus() *cobra.Command {
	var at place
	var out form
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status --config relay.yaml [--watch]",
		Short: "Print backlog, owners and slots of the databases",
		Long: `Print what the databases know: each pipeline's backlog and the age of its oldest
unsent event, its rate and the circuits that are not closed, as of the relays' last
heartbeats (a third of their lease), who publishes how many shards, running relays,
and the log's slots. It
works whether a relay runs or not, and looks at no more than some ten thousand events
of a pipeline: beyond that the backlog is an estimate, marked with ~.

With --json one object is printed for each database.

With --watch it looks again and again until it is interrupted: in place on a terminal,
elsewhere with a line for each pipeline, or with --json an object for each database. A
database that does not answer is named, and asked again.`,
		Example: `  relay status --config relay.yaml
  relay status --watch
  relay status --database shop --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, list, err := at.each()
			if err != nil {
				return err
			}
			if watch {
				return watchStatus(cmd.Context(), cmd.OutOrStdout(), c, list, every, out.json)
			}
			return printStatus(cmd.Context(), cmd.OutOrStdout(), c, list, out.json)
		},
	}
	at.flags(cmd)
	out.flag(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "look again and again")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "pause between two looks of --watch")
	return cmd
}

// databaseStatus is a line of "relay status --json".
type databaseStatus struct {
	Database string `json:"database,omitempty"`
	Error    string `json:"error,omitempty"`
	*relay.Status
}

// printStatus goes on when one database does not answer, and returns an error at
// the end.
func printStatus(ctx context.Context, w io.Writer, c config, list []databaseEntry, asJSON bool) error {
	failed := 0
	for _, d := range list {
		c.Database, c.Pipelines = d.databaseConfig, d.Pipelines
		st, err := readStatus(ctx, c)
		line := databaseStatus{Database: d.Name, Status: &st}
		if err != nil {
			failed++
			line.Error, line.Status = explained(err), nil
		}
		if asJSON {
			err = json.NewEncoder(w).Encode(line)
		} else {
			_, err = fmt.Fprint(w, line.text())
		}
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d databases gave no status", failed, len(list))
	}
	return nil
}

func readStatus(ctx context.Context, c config) (relay.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	pool, err := openPool(ctx, c)
	if err != nil {
		return relay.Status{}, err
	}
	defer pool.Close()
	return relay.ReadStatus(ctx, pool, c.Database.Schema)
}

func (s databaseStatus) text() string {
	var b strings.Builder
	if s.Database != "" {
		fmt.Fprintf(&b, "Database %s\n", s.Database)
	}
	if s.Status == nil {
		fmt.Fprintf(&b, "%s\n\n", s.Error)
		return b.String()
	}
	fmt.Fprintf(&b, "Pipelines\n%s\n\nRelays\n%s\n\nLog\n%s\n\n",
		pipelineTable(s.Pipelines), instanceTable(s.Instances), slotTable(s.Slots))
	return b.String()
}

func newTable(columns ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(columns)
	return t
}

func pipelineTable(list []relay.PipelineStatus) string {
	t := newTable("pipeline", "backlog", "oldest unsent", "events/s", "circuits", "parked", "position stored", "shards", "owners")
	for _, p := range list {
		backlog := fmt.Sprint(p.Backlog)
		if !p.BacklogExact {
			backlog = "~" + backlog
		}
		owned := 0
		var owners []string
		for _, o := range p.Owners {
			text := fmt.Sprintf("%s (%d)", o.Instance, o.Shards)
			if o.Live {
				owned += o.Shards
			} else {
				text += " silent, to be taken over"
			}
			owners = append(owners, text)
		}
		t.AppendRow(table.Row{
			p.Name, backlog, age(p.OldestUnsentSeconds), fmt.Sprintf("%.1f", p.PublishedPerSecond), circuits(p), parkedCounts(p.Parked), age(p.PositionAgeSeconds) + " ago",
			fmt.Sprintf("%d of %d", owned, owned+p.Unowned), strings.Join(owners, "\n"),
		})
	}
	return t.Render()
}

// circuits lists those that are not closed; instances mostly agree on them.
func circuits(p relay.PipelineStatus) string {
	var lines []string
	for _, c := range p.Circuits {
		what := "broker"
		if c.Topic != "" {
			what = "topic " + printable(c.Topic)
		}
		lines = append(lines, fmt.Sprintf("%s %s (%s)", what, c.State, c.Instance))
	}
	if p.MoreCircuits > 0 {
		lines = append(lines, fmt.Sprintf("and %d more topics", p.MoreCircuits))
	}
	if len(lines) == 0 {
		return "-"
	}
	return strings.Join(lines, "\n")
}

func parkedCounts(p relay.ParkedStatus) string {
	if p.Retrying+p.Blocked+p.Dead == 0 {
		return "-"
	}
	text := fmt.Sprintf("%d dead, %d retrying, %d blocked", p.Dead, p.Retrying, p.Blocked)
	if p.BlockedKeys > 0 {
		text += fmt.Sprintf(" (%d keys stand still)", p.BlockedKeys)
	}
	if !p.Exact {
		text = "at least " + text
	}
	return text
}

func instanceTable(list []relay.InstanceStatus) string {
	t := newTable("relay", "running for", "lease")
	for _, i := range list {
		lease := "valid for " + age(i.ExpiresInSeconds)
		if !i.Live {
			lease = "expired " + age(-i.ExpiresInSeconds) + " ago"
		}
		t.AppendRow(table.Row{i.Name, age(i.RunningSeconds), lease})
	}
	return t.Render()
}

func slotTable(list []relay.SlotStatus) string {
	t := newTable("slot", "events about", "MiB", "oldest")
	for _, s := range list {
		name := fmt.Sprint(s.Slot)
		if s.Current {
			name += " (current)"
		}
		t.AppendRow(table.Row{name, s.Rows, fmt.Sprintf("%.1f", float64(s.Bytes)/(1<<20)), age(s.OldestSeconds)})
	}
	return t.Render()
}

// age is a duration for people: "-" for none, seconds below a minute with one
// digit.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d == 0:
		return "-"
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
