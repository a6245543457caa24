package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/term"

	"github.com/outboxkit/outboxkit/relay"
)

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a file descriptor
}

// replayPrinter prints progress: on a terminal one line that changes, elsewhere a
// line now and then.
type replayPrinter struct {
	out  io.Writer
	json bool
	live bool
	last time.Time
}

const plainEvery = 10 * time.Second

func (p *replayPrinter) progress(r relay.ReplayProgress) {
	switch {
	case p.json:
		_ = json.NewEncoder(p.out).Encode(r)
	case p.live:
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s", progressText(r))
	case time.Since(p.last) >= plainEvery:
		p.last = time.Now()
		_, _ = fmt.Fprintln(p.out, progressText(r))
	}
}

func progressText(r relay.ReplayProgress) string {
	text := fmt.Sprintf("%d events published, %.0f a second, %.0f %% of the log", r.Published, r.Rate, 100*r.Part)
	if r.Refused > 0 {
		text += fmt.Sprintf(", %d refused, %d held back behind them", r.Refused, r.Held)
	}
	if r.Remaining > 0 {
		text += fmt.Sprintf(", about %s to go", r.Remaining.Round(time.Second))
	}
	if r.Error != "" {
		text += ", waiting: " + shorten(printable(r.Error), 60)
	}
	return text
}

func (p *replayPrinter) end(cfg relay.ReplayConfig, got relay.ReplayResult, failed error) error {
	if p.json {
		if failed != nil && got.ID == "" {
			return nil
		}
		return json.NewEncoder(p.out).Encode(got)
	}
	if p.live {
		_, _ = fmt.Fprintln(p.out)
	}
	p.refused(got.Refused)
	switch {
	case failed == nil && cfg.DryRun:
		return p.counts(cfg, got)
	case failed == nil:
		_, err := fmt.Fprintf(p.out, "replay %s done: %d events published\n", got.ID, got.Published)
		return err
	case got.ID == "" || errors.Is(failed, relay.ErrTruncated) || errors.Is(failed, relay.ErrReplayEnded) || errors.Is(failed, relay.ErrReplayTaken):
		return nil
	}
	_, err := fmt.Fprintf(p.out, "stopped after %d events; go on with: relay replay --resume %s\n", got.Published, got.ID)
	return err
}

func (p *replayPrinter) refused(list []relay.ReplayFailure) {
	if len(list) == 0 {
		return
	}
	t := newTable("refused event", "topic", "key", "type", "reason")
	for _, e := range list {
		t.AppendRow(table.Row{e.ID, printable(e.Topic), printable(e.Key), printable(e.Type), shorten(printable(e.Reason), 80)})
	}
	_, _ = fmt.Fprintln(p.out, t.Render())
}

func (p *replayPrinter) counts(cfg relay.ReplayConfig, got relay.ReplayResult) error {
	t := newTable("topic", "type", "events")
	var all int64
	for _, c := range got.Counts {
		t.AppendRow(table.Row{printable(c.Topic), printable(c.Type), c.Events})
		all += c.Events
	}
	text := fmt.Sprintf("%d events would be published, in about %s", all, (time.Duration(all) * time.Second / time.Duration(cfg.Rate)).Round(time.Second))
	if len(got.Counts) > 0 {
		text = t.Render() + "\n" + text
	}
	if !got.Oldest.IsZero() {
		text += "\nthe oldest event that is retained was written at " + got.Oldest.UTC().Format(time.RFC3339)
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}
