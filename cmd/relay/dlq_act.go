package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// dlqPrinter runs a redrive or discard and tells how it goes: on a terminal in one
// line that changes.
type dlqPrinter struct {
	out        io.Writer
	json, live bool
	name       string
	last       string
}

// verbs are what has happened to events.
var verbs = map[string]string{"redrive": "redriven", "discard": "discarded"}

func (p *dlqPrinter) act(ctx context.Context, s deadStore, f *dlqFlags) error {
	a, number := f.action, int64(0)
	a.Progress = func(action, events int64) {
		number = action
		p.line("%d events marked to be %s", events, verbs[p.name])
	}
	n, err := s.act(ctx, p.name == "redrive", f.filter, a)
	p.endLine()
	if err != nil && !partly(err) {
		if n > 0 {
			err = fmt.Errorf("%w (after %d events)", err, n)
		}
		return err
	}
	var o *outcome
	var waited error
	if p.name == "redrive" && !a.DryRun && n > 0 && f.wait > 0 {
		o, waited = p.wait(ctx, s, number, f.wait)
	}
	return errors.Join(err, p.result(n, a.DryRun, o), waited)
}

func (p *dlqPrinter) result(n int64, dry bool, o *outcome) error {
	if p.json {
		return json.NewEncoder(p.out).Encode(struct {
			Action  string   `json:"action"`
			Events  int64    `json:"events"`
			DryRun  bool     `json:"dry_run"`
			Outcome *outcome `json:"outcome,omitempty"`
		}{p.name, n, dry, o})
	}
	text := fmt.Sprintf("%d events %s", n, verbs[p.name])
	switch {
	case dry:
		text = fmt.Sprintf("%d events would be %s", n, verbs[p.name])
	case p.name == "redrive" && o == nil:
		text = fmt.Sprintf("%d events are to be redriven", n)
	case o != nil:
		text = fmt.Sprintf("%d events were to be redriven; with what followed behind them: %s", n, outcomeText(*o))
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

func outcomeText(o outcome) string {
	text := fmt.Sprintf("%d redriven", o.Redriven)
	if o.Dead > 0 {
		text += fmt.Sprintf(", %d dead again", o.Dead)
	}
	if o.Blocked > 0 {
		text += fmt.Sprintf(", %d blocked", o.Blocked)
	}
	if o.Retrying > 0 {
		text += fmt.Sprintf(", %d still wait", o.Retrying)
	}
	return text
}

// outcomeEvery is how often a command that waits looks.
const outcomeEvery = 250 * time.Millisecond

// wait follows a redrive to its end, or until nothing has happened for patience.
func (p *dlqPrinter) wait(ctx context.Context, s deadStore, action int64, patience time.Duration) (*outcome, error) {
	defer p.endLine()
	var before outcome
	tick := time.NewTicker(outcomeEvery)
	defer tick.Stop()
	for changed := time.Now(); ; {
		o, err := s.outcome(ctx, action)
		switch {
		case ctx.Err() != nil:
			return nil, errors.New("stopped waiting; the redrive goes on by itself")
		case err != nil:
			return nil, err
		}
		p.line("%s", outcomeText(o))
		if o.Redriven != before.Redriven || o.Retrying != before.Retrying || o.Dead != before.Dead {
			before, changed = o, time.Now()
		}
		switch {
		case o.Retrying == 0 && o.Dead > 0:
			return &o, fmt.Errorf("%d events are dead again: relay dlq list --state dead", o.Dead)
		case o.Retrying == 0 && o.Blocked > 0:
			return &o, fmt.Errorf("%d events are blocked behind a dead one of their key: redrive or discard that, and they follow", o.Blocked)
		case o.Retrying == 0:
			return &o, nil
		case time.Since(changed) >= patience:
			return &o, fmt.Errorf("%d events still wait, and nothing has happened for %s: %s", o.Retrying, patience, s.idle(o))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// line replaces the line on a terminal.
func (p *dlqPrinter) line(format string, args ...any) {
	if p.live {
		p.last = fmt.Sprintf(format, args...)
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s", p.last)
	}
}

func (p *dlqPrinter) endLine() {
	if p.live && p.last != "" {
		p.last = ""
		_, _ = fmt.Fprintln(p.out)
	}
}
