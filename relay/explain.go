package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
)

// Explanation says where an event is, and why. It is put together from several
// statements, so what changes meanwhile may be seen half.
type Explanation struct {
	// ID is what was asked for, in the usual form of a UUID; shorter if the beginning
	// of one was given.
	ID string `json:"id"`
	// At is the database's clock, by which all ages are measured.
	At time.Time `json:"at"`
	// Events are those with the id that the log or a pipeline's parked events hold:
	// nearly always one, since an id is unique for its source alone.
	Events []EventStory `json:"events"`
	// Missing is set if there is none.
	Missing *MissingEvent `json:"missing,omitempty"`
}

// EventStory is what has become of one event.
type EventStory struct {
	EventID string `json:"event_id"`
	Source  string `json:"source"`
	Type    string `json:"type"`
	Topic   string `json:"topic"` // as written by the service
	Key     string `json:"key"`
	// Log is nil if the log has been truncated since: copies of the event are parked.
	Log       *LogEntry       `json:"log,omitempty"`
	Pipelines []PipelineStory `json:"pipelines"`
}

// LogEntry is an event's row.
type LogEntry struct {
	ID          int64     `json:"id"`
	Slot        int       `json:"slot"`
	Shard       int       `json:"shard"`
	Transaction string    `json:"transaction"` // that wrote it; it has committed
	WrittenAt   time.Time `json:"written_at"`  // by the INSERT, before the commit
	Bytes       int64     `json:"bytes"`       // of the payload
}

// What [PipelineStory.State] may be besides the states of a parked event:
// retrying, blocked, dead, discarded.
const (
	// StoryPublished: a broker has confirmed it.
	StoryPublished = "published"
	// StorySkipped: the pipeline began behind it, so it was never its to publish.
	StorySkipped = "skipped"
	// StoryFiltered: the pipeline's filter leaves it out.
	StoryFiltered = "filtered"
	// StoryWaiting: it is committed, and the stored position has not passed it.
	StoryWaiting = "waiting"
)

// PipelineStory is what one pipeline has done with an event.
type PipelineStory struct {
	Pipeline string `json:"pipeline"`
	// State is published, skipped, filtered, waiting, retrying, blocked, dead or
	// discarded.
	State string `json:"state"`
	// Destination is the topic at the broker, as mapped now; for parked events as
	// mapped when it was parked.
	Destination string `json:"destination"`
	// PublishedBy is when a position that passes the event was stored: the broker had
	// confirmed it by then, and after it was written. With Exact the position before
	// did not pass it yet, so that it is the moment to a few hundred milliseconds of a
	// busy relay; otherwise older positions have been forgotten and it may be long ago.
	PublishedBy time.Time `json:"published_by,omitzero"`
	Exact       bool      `json:"exact,omitempty"`
	// Instance stored that position.
	Instance string `json:"instance,omitempty"`
	// Ahead is how many committed events of the log, up to [BacklogCounted], are to be
	// read before a waiting one.
	Ahead int64 `json:"ahead,omitempty"`
	// Parked is the event as it is parked, without payload and headers, and Behind the
	// event at the head of its topic and key, which it waits for.
	Parked *ParkedEvent `json:"parked,omitempty"`
	Behind *ParkedEvent `json:"behind,omitempty"`
	// Reasons say why, the first one first, with what to do about it.
	Reasons []Reason `json:"reasons"`
}

// Reason is one cause of where an event is.
type Reason struct {
	// Kind is a word for programs; the constants that begin with Why.
	Kind string `json:"kind"`
	// Text says it to people; Cure, if there is one, what to do.
	Text string `json:"text"`
	Cure string `json:"cure,omitempty"`
}

// What [Reason.Kind] may be.
const (
	WhyNoOwner     = "no_owner"     // nobody holds the lease of its shard
	WhySilent      = "silent_owner" // whoever holds it has not been heard of for a lease
	WhyCircuit     = "circuit"      // the broker's or the topic's circuit is not closed
	WhyParkedKey   = "parked_key"   // an earlier event of its topic and key is parked
	WhyInLine      = "in_line"      // earlier events are being published
	WhyFailed      = "failed"       // attempts to publish it failed
	WhyUnanswered  = "unanswered"   // an attempt ended without an answer
	WhyFilter      = "filter"       // of the pipeline
	WhyBegan       = "began_behind" // the pipeline's first position lies behind it
	WhyPassed      = "passed"       // the pipeline's position lies behind it
	WhyDiscarded   = "discarded"    // by a person
	WhyOpen        = "open"         // a transaction that may hold it is open
	WhyTruncated   = "truncated"    // the log does not reach back so far
	WhyRolledBack  = "rolled_back"  // or never written here
	WhyAlike       = "alike"        // another id looks like it
	WhyNotSearched = "not_searched" // part of the log
)

// ExplainConfig says what to explain.
type ExplainConfig struct {
	// Schema is the database schema of the outbox. Default: "outbox".
	Schema string
	// ID is the event's id, or at least the first 8 hex digits of it. Required.
	ID string
	// Source is the event's, where several have the id. Default: all.
	Source string
	// Topic maps an event's topic to the one at the broker, as Pipeline.Topic of the
	// pipeline. Default: topics as they are.
	Topic func(pipeline, topic string) string
	// ScanLimit bounds the search through the whole log for an event that is not where
	// its id says. Default: 20 s.
	ScanLimit time.Duration
}

// Explain says where an event is, and why. It changes nothing, and works whether
// relays run or not. It looks for the event among those written within minutes of
// the time in its id, and only if it is not there through the whole log. The
// relay's grants are enough; with pg_read_all_stats it can say more of open
// transactions.
func Explain(ctx context.Context, pool *pgxpool.Pool, cfg ExplainConfig) (Explanation, error) {
	if cfg.Schema == "" {
		cfg.Schema = "outbox"
	}
	setDefault(&cfg.ScanLimit, 20*time.Second)
	if err := (Config{Schema: cfg.Schema}).checkSchema(); err != nil {
		return Explanation{}, err
	}
	id, err := parseSought(cfg.ID)
	if err != nil {
		return Explanation{}, err
	}
	x := explainer{pool: pool, cfg: cfg, id: id}
	e, err := x.explain(ctx)
	if err != nil {
		return e, fmt.Errorf("explain %s in %s: %w", id.text, cfg.Schema, notMigrated(err))
	}
	return e, nil
}

type explainer struct {
	pool *pgxpool.Pool
	cfg  ExplainConfig
	id   sought
}

func (x *explainer) sql(query string) string { return inSchema(query, x.cfg.Schema) }

func (x *explainer) explain(ctx context.Context) (e Explanation, err error) {
	e = Explanation{ID: x.id.text, Events: []EventStory{}}
	if err := x.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&e.At); err != nil {
		return e, err
	}
	found, err := x.find(ctx)
	if err != nil {
		return e, err
	}
	if len(found.events) == 0 || !x.id.full && len(found.ids()) > 1 {
		e.Missing, err = x.missing(ctx, found)
		return e, err
	}
	for _, row := range found.events {
		if err := x.story(ctx, &row); err != nil {
			return e, err
		}
		e.Events = append(e.Events, row)
	}
	return e, nil
}

// errNotAnID names the way out.
func errNotAnID(text string) error {
	return &event.FieldError{Field: "ExplainConfig.ID", Value: text, Problem: "is not an event's id",
		Hint: "a UUID such as 0198f0c4-7a1b-7c3d-8e4f-5a6b7c8d9e0f, or at least the first 8 hex digits of it"}
}
