package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/term"

	"github.com/outboxkit/outboxkit/relay"
)

// watchLimit bounds one look at a database.
const watchLimit = 15 * time.Second

// statusWatch looks at databases again and again, on connections that stay.
type statusWatch struct {
	out   io.Writer
	list  []databaseEntry
	pools []*pgxpool.Pool
	json  bool
	live  bool // on a terminal
}

// watchStatus returns nil when ctx ends.
func watchStatus(ctx context.Context, out io.Writer, c config, list []databaseEntry, every time.Duration, asJSON bool) error {
	if every <= 0 {
		return wrongUse("--every %s is not a positive duration: for example 2s", every)
	}
	w := &statusWatch{out: out, list: list, json: asJSON, live: !asJSON && terminal(out)}
	for _, d := range list {
		c.Database, c.Pipelines = d.databaseConfig, d.Pipelines
		pool, err := openPool(ctx, c)
		if err != nil {
			return err
		}
		defer pool.Close()
		w.pools = append(w.pools, pool)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		lines := w.look(ctx)
		if ctx.Err() != nil {
			return w.end(nil)
		}
		if err := w.show(lines, first, every); err != nil {
			return w.end(err)
		}
		select {
		case <-ctx.Done():
			return w.end(nil)
		case <-tick.C:
		}
	}
}

// look asks all databases at once: one that is slow holds up the next look, and no
// other database's place in this one.
func (w *statusWatch) look(ctx context.Context) []databaseStatus {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	lines := make([]databaseStatus, len(w.list))
	var all sync.WaitGroup
	for i, d := range w.list {
		all.Go(func() {
			lines[i] = databaseStatus{Database: d.Name}
			if st, err := relay.ReadStatus(ctx, w.pools[i], d.Schema); err != nil {
				lines[i].Error = explained(err)
			} else {
				lines[i].Status = &st
			}
		})
	}
	all.Wait()
	return lines
}

func (w *statusWatch) show(lines []databaseStatus, first bool, every time.Duration) error {
	now := time.Now()
	var b strings.Builder
	switch {
	case w.json:
		encoder := json.NewEncoder(&b)
		for _, l := range lines {
			if err := encoder.Encode(l); err != nil {
				return err
			}
		}
	case w.live:
		fmt.Fprintf(&b, "%s, every %s; end with Ctrl-C\n\n", now.Format(time.DateTime), every)
		for _, l := range lines {
			b.WriteString(l.short())
		}
		width, height := size(w.out)
		text := redraw(b.String(), width, height, first)
		_, err := io.WriteString(w.out, text)
		return err
	default:
		for _, l := range lines {
			l.plain(&b, now)
		}
	}
	_, err := io.WriteString(w.out, b.String())
	return err
}

// end leaves the terminal's cursor below what was drawn.
func (w *statusWatch) end(err error) error {
	if w.live {
		_, werr := fmt.Fprintln(w.out)
		err = errors.Join(err, werr)
	}
	return err
}

// size is the terminal's, or a usual one.
func size(w io.Writer) (width, height int) {
	if f, ok := w.(*os.File); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 { //nolint:gosec // a file descriptor
			return width, height
		}
	}
	return 120, 40
}

// redraw draws text over what was drawn before: each line is cut to the width, rests
// of older lines are wiped, and what is too much for the height is left out. The first
// redraw clears the screen.
func redraw(text string, width, height int, first bool) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if most := max(height-1, 1); len(lines) > most {
		left := len(lines) - most + 1
		lines = append(lines[:most-1:most-1], fmt.Sprintf("… %d more lines: make the window higher, or choose one with --database", left))
	}
	var b strings.Builder
	if first {
		b.WriteString("\x1b[2J")
	}
	b.WriteString("\x1b[H")
	for _, line := range lines {
		b.WriteString(shorten(line, width))
		b.WriteString("\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// short is what changes from look to look: pipelines and relays.
func (s databaseStatus) short() string {
	if s.Status == nil {
		return s.text()
	}
	var b strings.Builder
	if s.Database != "" {
		fmt.Fprintf(&b, "Database %s\n", s.Database)
	}
	fmt.Fprintf(&b, "%s\n\n%s\n\n", pipelineTable(s.Pipelines), instanceTable(s.Instances))
	return b.String()
}

// plain writes a line for each pipeline, for logs and pipes.
func (s databaseStatus) plain(b *strings.Builder, now time.Time) {
	at := now.UTC().Format(time.RFC3339)
	where := ""
	if s.Database != "" {
		where = " database=" + printable(s.Database)
	}
	if s.Status == nil {
		fmt.Fprintf(b, "%s%s error=%q\n", at, where, s.Error)
		return
	}
	if len(s.Pipelines) == 0 {
		fmt.Fprintf(b, "%s%s no pipeline is registered: no relay has run yet\n", at, where)
	}
	for _, p := range s.Pipelines {
		backlog := fmt.Sprint(p.Backlog)
		if !p.BacklogExact {
			backlog = "~" + backlog
		}
		owned := 0
		owners := []string{}
		for _, o := range p.Owners {
			if o.Live {
				owned += o.Shards
				owners = append(owners, fmt.Sprintf("%s(%d)", printable(o.Instance), o.Shards))
			}
		}
		fmt.Fprintf(b, "%s%s pipeline=%s backlog=%s oldest=%s rate=%.1f/s shards=%d/%d owners=%s circuits=%q dead=%d retrying=%d blocked=%d blocked_keys=%d\n",
			at, where, printable(p.Name), backlog, age(p.OldestUnsentSeconds), p.PublishedPerSecond, owned, owned+p.Unowned, dash(strings.Join(owners, ",")),
			strings.ReplaceAll(circuits(p), "\n", ", "), p.Parked.Dead, p.Parked.Retrying, p.Parked.Blocked, p.Parked.BlockedKeys)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
