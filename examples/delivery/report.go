package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/outboxkit/outboxkit/examples/delivery/verdict"
)

// report is the result of a run, as --json prints it.
type report struct {
	Held       bool              `json:"held"`
	Promises   []verdict.Promise `json:"promises"`
	Deliveries int               `json:"deliveries"`
	Reports    int               `json:"reports"`   // of drones' status, each counted once
	Positions  int               `json:"positions"` // telemetry that nobody handles
	Repeated   int               `json:"repeated"`  // reports and positions that were sent once more
	Kills      int               `json:"kills"`     // of services
	Events     int               `json:"events"`    // that the delivery service wrote
	History    int               `json:"history"`   // rows of the history service
	Seconds    float64           `json:"seconds"`
}

// print writes JSON, or the samples, the numbers and the verdict.
func (r report) print(w io.Writer, asJSON bool, samples []sample) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	var b strings.Builder
	for _, s := range samples {
		fmt.Fprintf(&b, "\n%s, because of %s\n", s.Delivery, s.Request)
		for _, l := range s.Lines {
			b.WriteString(l.String())
		}
	}
	fmt.Fprintf(&b, "\n%d deliveries: %d reports and %d positions, %d of them sent twice → %d events → %d rows of history\n\n",
		r.Deliveries, r.Reports, r.Positions, r.Repeated, r.Events, r.History)
	b.WriteString(r.verdict())
	_, err := io.WriteString(w, b.String())
	return err
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
		return b.String()
	}
	return "Every promise held: " + strings.Join(names, "; ") + ".\n"
}
