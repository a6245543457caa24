package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/term"

	"github.com/outboxkit/outboxkit/internal/faults"
	"github.com/outboxkit/outboxkit/internal/history"
)

// printer shows what happens: a line for each event and, on a terminal, one at the
// bottom that is written over and over.
type printer struct {
	to       *os.File
	terminal bool
}

func newPrinter(to *os.File) *printer {
	return &printer{to, term.IsTerminal(int(to.Fd()))} //nolint:gosec // a descriptor
}

func (p *printer) watch(s faults.Progress) {
	if p.terminal {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
	if s.Event != "" {
		fmt.Fprintf(p.to, "%7.1f s  %s\n", s.Elapsed.Seconds(), s.Event)
	}
	if p.terminal {
		width, _, err := term.GetSize(int(p.to.Fd())) //nolint:gosec // a descriptor
		if err != nil {
			width = 80
		}
		line := fmt.Sprintf("%s of %s, %d faults, %d orders, %d effects. Now: %s",
			s.Elapsed.Round(time.Second), s.Duration, s.Faults, s.Committed, s.Effects, strings.Join(s.Active, ", "))
		fmt.Fprint(p.to, line[:max(0, min(len(line), width-1))])
	}
}

func (p *printer) end() {
	if p.terminal {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// text is the report for people.
func text(r *faults.Report) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"fault", "inflicted"})
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(r.Faults)) {
		t.AppendRow(table.Row{kind, r.Faults[kind]})
		total += r.Faults[kind]
	}
	t.AppendFooter(table.Row{"", total})
	var b strings.Builder
	b.WriteString(t.Render() + "\n\n")
	for _, what := range slices.Sorted(maps.Keys(r.Numbers)) {
		fmt.Fprintf(&b, "%8d %s\n", r.Numbers[what], what)
	}
	fmt.Fprintf(&b, "\nat rest %.1f s after the last fault\n", r.RestTook.Seconds())
	for _, p := range r.Problems {
		b.WriteString("\nPROBLEM: " + p)
	}
	if len(r.Violations) > 0 {
		b.WriteString("\n" + history.Report(r.Violations))
	}
	if r.Failed() {
		fmt.Fprintf(&b, "\n\nFAILED: %d violations, %d problems; the same plan again: FAULT_SEED=%d", len(r.Violations), len(r.Problems), r.Seed)
	} else {
		fmt.Fprintf(&b, "\nno violations; FAULT_SEED=%d", r.Seed)
	}
	return b.String()
}
