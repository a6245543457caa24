package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

// deadStore is where the dlq commands find their events: an outbox or an inbox.
type deadStore interface {
	owner() string // what an event belongs to: pipeline or consumer
	list(ctx context.Context, f dlqFilter, after int64, limit int) ([]letter, error)
	show(ctx context.Context, n int64) (letter, error)
	export(ctx context.Context, f dlqFilter, each func(letter) error) error
	act(ctx context.Context, redrive bool, f dlqFilter, a dlqAction) (int64, error)
	outcome(ctx context.Context, action int64) (outcome, error)
	idle(o outcome) string // why nothing happens, for people
}

// dlqFilter is relay.ParkedFilter or inbox.DeadFilter.
type dlqFilter struct {
	N                                                 int64
	Owner, Topic, Type, Key, Source, ID, State, Class string
	Reason                                            string
	Since, Until                                      time.Time
}

// dlqAction is relay.ParkedAction or inbox.DeadAction.
type dlqAction struct {
	By, Reason string
	DryRun     bool
	Rate       int
	Progress   func(action, events int64)
}

// outcome is what has become of a redrive so far.
type outcome struct {
	Redriven  int64    `json:"redriven"`
	Retrying  int64    `json:"retrying"`
	Dead      int64    `json:"dead"`
	Blocked   int64    `json:"blocked"`             // chosen in an inbox, but behind another of their key
	Untouched []string `json:"untouched,omitempty"` // types of an inbox's that nobody has tried yet
	untried   int64    // events of an outbox that nobody has tried yet
}

// letter is an event that was put aside, in the one shape that the commands print.
type letter struct {
	N             int64           `json:"n"`
	Pipeline      string          `json:"pipeline,omitempty"` // of an outbox
	Consumer      string          `json:"consumer,omitempty"` // of an inbox
	State         string          `json:"state"`
	ID            string          `json:"id"`
	Source        string          `json:"source"`
	Type          string          `json:"type"`
	Topic         string          `json:"topic"`
	Destination   string          `json:"destination,omitempty"` // the topic at the broker; of an outbox
	Origin        string          `json:"origin,omitempty"`      // where it came from; of an inbox
	Key           string          `json:"key"`
	Class         string          `json:"class,omitempty"`
	Reason        string          `json:"reason,omitempty"`
	Attempts      int             `json:"attempts"`
	StoredAt      time.Time       `json:"stored_at"`
	NextAttemptAt time.Time       `json:"next_attempt_at,omitzero"`
	MayBeOut      bool            `json:"may_be_out,omitempty"` // of an outbox
	Bytes         int64           `json:"bytes"`
	Time          time.Time       `json:"time,omitzero"`
	ContentType   string          `json:"content_type,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	CausationID   string          `json:"causation_id,omitempty"`
	Headers       json.RawMessage `json:"headers,omitempty"`
	Payload       []byte          `json:"payload,omitempty"`   // as stored, in base64
	Tombstone     bool            `json:"tombstone,omitempty"` // the payload is not empty: there is none
	Hidden        bool            `json:"hidden,omitempty"`    // what the configuration hides of the payload is not here
	decoded
	Action       string    `json:"action,omitempty"`
	ActionAt     time.Time `json:"action_at,omitzero"`
	ActionBy     string    `json:"action_by,omitempty"`
	ActionReason string    `json:"action_reason,omitempty"`
}

// on runs a command on what --inbox, --config and --database say.
func (f *dlqFlags) on(ctx context.Context, run func(deadStore) error) error {
	if err := f.complete(); err != nil {
		return err
	}
	if f.inbox == "" {
		return f.at.on(ctx, func(pool *pgxpool.Pool, c config) error {
			hide, err := hideRules(c.Hide, f.hide)
			if err != nil {
				return err
			}
			return run(outboxStore{pool, c.Database.Schema, &decoder{hide: hide}})
		})
	}
	entry, err := f.at.inbox(f.inbox)
	if err != nil {
		return err
	}
	hide, err := hideRules(entry.hide, f.hide)
	if err != nil {
		return err
	}
	wire, err := entry.Wire.open(f.at.path)
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, config{Database: entry.databaseConfig})
	if err != nil {
		return err
	}
	defer pool.Close()
	return run(inboxStore{pool, entry.Schema, &decoder{wire: wire, hide: hide}})
}

type outboxStore struct {
	pool   *pgxpool.Pool
	schema string
	*decoder
}

func (outboxStore) owner() string { return "pipeline" }

func (outboxStore) filter(f dlqFilter) relay.ParkedFilter {
	return relay.ParkedFilter{
		N: f.N, Pipeline: f.Owner, Topic: f.Topic, Type: f.Type, Key: f.Key, Source: f.Source, EventID: f.ID,
		State: f.State, Class: f.Class, Reason: f.Reason, Since: f.Since, Until: f.Until,
	}
}

func (outboxStore) letter(e *relay.ParkedEvent) letter {
	return letter{
		N: e.N, Pipeline: e.Pipeline, State: e.State, ID: e.EventID, Source: e.Source, Type: e.Type, Topic: e.Topic,
		Destination: e.Destination, Key: e.Key, Class: e.Class, Reason: e.Reason, Attempts: e.Attempts, StoredAt: e.ParkedAt,
		NextAttemptAt: e.NextAttemptAt, MayBeOut: e.MayBeOut, Bytes: e.Bytes, Time: e.Time, ContentType: e.ContentType,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, Headers: e.Headers, Payload: e.Payload,
		Action: e.Action, ActionAt: e.ActionAt, ActionBy: e.ActionBy, ActionReason: e.ActionReason,
	}
}

func (s outboxStore) wholeLetter(ctx context.Context, e *relay.ParkedEvent) letter {
	l := s.letter(e)
	l.Tombstone, l.decoded = e.Payload == nil, s.decode(ctx, e.Topic, e.Schema, e.Payload)
	s.conceal(&l)
	return l
}

func (s outboxStore) list(ctx context.Context, f dlqFilter, after int64, limit int) ([]letter, error) {
	found, err := relay.Parked(ctx, s.pool, s.schema, s.filter(f), after, limit)
	list := make([]letter, len(found))
	for i := range found {
		list[i] = s.letter(&found[i])
	}
	return list, err
}

func (s outboxStore) show(ctx context.Context, n int64) (letter, error) {
	e, err := relay.ShowParked(ctx, s.pool, s.schema, n)
	if err != nil {
		return letter{}, err
	}
	return s.wholeLetter(ctx, &e), nil
}

func (s outboxStore) export(ctx context.Context, f dlqFilter, each func(letter) error) error {
	return relay.ExportParked(ctx, s.pool, s.schema, s.filter(f), func(e relay.ParkedEvent) error { return each(s.wholeLetter(ctx, &e)) })
}

func (s outboxStore) act(ctx context.Context, redrive bool, f dlqFilter, a dlqAction) (int64, error) {
	act := relay.Discard
	if redrive {
		act = relay.Redrive
	}
	return act(ctx, s.pool, s.schema, s.filter(f), relay.ParkedAction{
		By: a.By, Reason: a.Reason, DryRun: a.DryRun, Rate: a.Rate,
		Progress: func(p relay.ParkedProgress) { a.Progress(p.Action, p.Events) },
	})
}

func (s outboxStore) outcome(ctx context.Context, action int64) (outcome, error) {
	o, err := relay.RedriveOutcome(ctx, s.pool, s.schema, action)
	return outcome{Redriven: o.Redriven, Retrying: o.Retrying, Dead: o.Dead, untried: o.Untouched}, err
}

func (outboxStore) idle(o outcome) string {
	if o.untried == 0 {
		return "they are tried again later, see relay dlq list --state retrying"
	}
	return "no relay has tried them: does one run with this pipeline (relay status)? It publishes them when it does"
}

type inboxStore struct {
	pool   *pgxpool.Pool
	schema string
	*decoder
}

func (inboxStore) owner() string { return "consumer" }

func (inboxStore) filter(f dlqFilter) inbox.DeadFilter {
	return inbox.DeadFilter{
		N: f.N, Consumer: f.Owner, Topic: f.Topic, Type: f.Type, Key: f.Key, Source: f.Source, ID: f.ID,
		State: f.State, Class: f.Class, Reason: f.Reason, Since: f.Since, Until: f.Until,
	}
}

func (inboxStore) letter(d *inbox.DeadLetter) letter {
	return letter{
		N: d.N, Consumer: d.Consumer, State: d.State, ID: d.ID, Source: d.Source, Type: d.Type, Topic: d.Topic,
		Origin: d.Origin.String(), Key: d.Key, Class: d.Class, Reason: d.Reason, Attempts: d.Attempts, StoredAt: d.StoredAt,
		NextAttemptAt: d.NextAttemptAt, Bytes: d.Bytes, Time: d.Time, ContentType: d.ContentType,
		CorrelationID: d.CorrelationID, CausationID: d.CausationID, Headers: d.Headers, Payload: d.Payload,
		Action: d.Action, ActionAt: d.ActionAt, ActionBy: d.ActionBy, ActionReason: d.ActionReason,
	}
}

func (s inboxStore) wholeLetter(ctx context.Context, d *inbox.DeadLetter) letter {
	l := s.letter(d)
	l.Tombstone, l.decoded = d.Payload == nil, s.decode(ctx, d.Topic, event.Schema{}, d.Payload)
	s.conceal(&l)
	return l
}

func (s inboxStore) list(ctx context.Context, f dlqFilter, after int64, limit int) ([]letter, error) {
	found, err := inbox.DeadLetters(ctx, s.pool, s.schema, s.filter(f), after, limit)
	list := make([]letter, len(found))
	for i := range found {
		list[i] = s.letter(&found[i])
	}
	return list, err
}

func (s inboxStore) show(ctx context.Context, n int64) (letter, error) {
	d, err := inbox.ShowDeadLetter(ctx, s.pool, s.schema, n)
	if err != nil {
		return letter{}, err
	}
	return s.wholeLetter(ctx, &d), nil
}

func (s inboxStore) export(ctx context.Context, f dlqFilter, each func(letter) error) error {
	return inbox.ExportDeadLetters(ctx, s.pool, s.schema, s.filter(f), func(d inbox.DeadLetter) error { return each(s.wholeLetter(ctx, &d)) })
}

func (s inboxStore) act(ctx context.Context, redrive bool, f dlqFilter, a dlqAction) (int64, error) {
	act := inbox.Discard
	if redrive {
		act = inbox.Redrive
	}
	return act(ctx, s.pool, s.schema, s.filter(f), inbox.DeadAction{
		By: a.By, Reason: a.Reason, DryRun: a.DryRun, Rate: a.Rate,
		Progress: func(p inbox.DeadProgress) { a.Progress(p.Action, p.Events) },
	})
}

func (s inboxStore) outcome(ctx context.Context, action int64) (outcome, error) {
	o, err := inbox.RedriveOutcome(ctx, s.pool, s.schema, action)
	return outcome{Redriven: o.Redriven, Retrying: o.Retrying, Dead: o.Dead, Blocked: o.Blocked, Untouched: o.Untouched}, err
}

func (inboxStore) idle(o outcome) string {
	if len(o.Untouched) == 0 {
		return "they are tried again later, see relay dlq list --state retrying"
	}
	return fmt.Sprintf("no running inbox has taken them: start the consumer, with handlers for %q; it handles them then. If it runs, the circuit of the type may be open: see its log", o.Untouched)
}

// partly reports an error after which the rest has been done.
func partly(err error) bool {
	return errors.Is(err, relay.ErrBeingPublished) || errors.Is(err, inbox.ErrBeingHandled)
}
