package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/outboxkit/outboxkit/examples/demo/verdict"
)

// report is the result of a run, as --json prints it.
type report struct {
	Held        bool              `json:"held"`
	Promises    []verdict.Promise `json:"promises"`
	Orders      producerReport    `json:"orders"`
	Services    []consumerReport  `json:"services"`
	Seconds     float64           `json:"seconds"`
	Connections *connections      `json:"connections,omitempty"` // with --keep
}

type producerReport struct {
	Written    int `json:"written"`     // events of committed transactions, the poison included
	RolledBack int `json:"rolled_back"` // events of the others
	Published  int `json:"published"`   // records in Kafka that came from the relay
	Repeated   int `json:"repeated"`    // of these, repeats after it was killed
	Copies     int `json:"copies"`      // records that the demo published a second time
}

type consumerReport struct {
	Name         string `json:"name"`
	Delivered    int    `json:"delivered"`            // duplicates included
	Duplicates   int    `json:"duplicates_delivered"` // of an event delivered before
	Effects      int    `json:"effects"`              // rows in the service's table
	DeadLettered int    `json:"dead_lettered"`        // rows in inbox.dead
}

func (s *scenario) report(e verdict.Evidence, promises []verdict.Promise, took time.Duration) report {
	written, published := len(e.Written)+1, s.stage.records()-s.copies
	r := report{
		Held: true, Promises: promises, Seconds: took.Seconds(),
		Orders: producerReport{
			Written: written, RolledBack: s.rolledBack,
			Published: published, Repeated: max(0, published-written), Copies: s.copies,
		},
	}
	for _, p := range promises {
		r.Held = r.Held && p.Held
	}
	for i, c := range s.consumers {
		n := c.tap.counts()
		r.Services = append(r.Services, consumerReport{
			Name: c.name, Delivered: n.delivered, Duplicates: n.duplicates,
			Effects: len(e.Services[i].Effects), DeadLettered: len(e.Services[i].Dead),
		})
	}
	return r
}

// print writes JSON, or the table and the verdict.
func (r report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	_, err := fmt.Fprintf(w, "\n%s\n\n%s\n", r.table(), r.verdict())
	if err == nil && r.Connections != nil {
		_, err = fmt.Fprint(w, r.Connections)
	}
	return err
}

func (r report) table() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	head := table.Row{"events", "orders"}
	delivered, duplicates := table.Row{"delivered", ""}, table.Row{"duplicates delivered", ""}
	effects, dead := table.Row{"effects", ""}, table.Row{"dead-lettered", ""}
	for _, s := range r.Services {
		head = append(head, s.Name)
		delivered = append(delivered, s.Delivered)
		duplicates = append(duplicates, s.Duplicates)
		effects = append(effects, s.Effects)
		dead = append(dead, s.DeadLettered)
	}
	t.AppendHeader(head)
	var numbers []table.ColumnConfig
	for n := range r.Services {
		numbers = append(numbers, table.ColumnConfig{Number: n + 3, Align: text.AlignRight})
	}
	t.SetColumnConfigs(append(numbers, table.ColumnConfig{Number: 2, Align: text.AlignRight}))
	t.AppendRows([]table.Row{
		{"written", r.Orders.Written},
		{"rolled back", r.Orders.RolledBack},
		{"published", r.Orders.Published},
		{"- repeated after the kill", r.Orders.Repeated},
		{"published again by the demo", r.Orders.Copies},
		delivered, duplicates, effects, dead,
	})
	return t.Render()
}

func (r report) verdict() string {
	var names []string
	var b strings.Builder
	for _, p := range r.Promises {
		if p.Held {
			names = append(names, p.Name)
			continue
		}
		fmt.Fprintf(&b, "BROKEN: %s\n", p.Name)
		for _, story := range p.Broken {
			fmt.Fprintf(&b, "  %s\n", story)
		}
	}
	if b.Len() > 0 {
		return strings.TrimSuffix(b.String(), "\n")
	}
	return "Every promise held: " + strings.Join(names, ", ") + "."
}
