package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
)

// HeaderReplayID is the header that marks every message of a replay; its value is
// the replay's id. It travels under this name on every broker.
const HeaderReplayID = "replayid"

var (
	// ErrTruncated is what every [TruncatedError] wraps.
	ErrTruncated = errors.New("events were truncated before the replay came to them")
	// ErrNoReplay says that there is no replay of that id to go on with.
	ErrNoReplay = errors.New("no such replay")
	// ErrReplayEnded says that a replay is done, or has lost events, and cannot be
	// resumed.
	ErrReplayEnded = errors.New("the replay has ended")
	// ErrReplayTaken is returned by a replay that was resumed elsewhere.
	ErrReplayTaken = errors.New("the replay was resumed by another process")
)

// ReplayConfig says what to publish again, and where to.
type ReplayConfig struct {
	// Schema is the database schema of the outbox. Default: "outbox".
	Schema string
	// Pipeline is the one whose events are published again: its filter counts. If To
	// is nil they go where it publishes. Required, also to resume.
	Pipeline Pipeline
	// To is another destination; its name, publisher, wire format and topic map
	// count. Default: nil, the pipeline's own.
	To *Pipeline
	// Where chooses events. Default: all that are retained.
	Where ReplayFilter
	// Rate is the most events a second. Default: 500.
	Rate int
	// Reason says why, for whoever asks later. Required, unless DryRun or Resume.
	Reason string
	// RequestedBy names who asked. Default: "", the database role is stored anyway.
	RequestedBy string
	// Resume is the id of a replay to go on with; Where, Reason and RequestedBy are
	// the stored ones then, and the names of Pipeline and To must be.
	Resume string
	// DryRun counts and publishes nothing.
	DryRun bool
	// Progress is called about once a second, and at the end. Default: nil.
	Progress func(ReplayProgress)
	// Logger receives failures that are tried again. Default: slog.Default().
	Logger *slog.Logger
}

// ReplayFilter chooses events; one must match all that is set.
type ReplayFilter struct {
	From   time.Time `json:"from,omitzero"`    // written at this time or later
	Until  time.Time `json:"until,omitzero"`   // written before this time
	Keys   []string  `json:"keys,omitempty"`   // ordering keys
	Types  []string  `json:"types,omitempty"`  // event types
	Topics []string  `json:"topics,omitempty"` // topics as written by the service
}

// ReplayProgress is how far a replay has come.
type ReplayProgress struct {
	ID        string        `json:"id"`
	Published int64         `json:"published"` // events, earlier runs included
	Refused   int           `json:"refused"`   // events that can never be published there
	Held      int64         `json:"held"`      // later events of their keys, left out
	Rate      float64       `json:"rate"`      // events a second in this run
	Part      float64       `json:"part"`      // of the log that has been looked through, 0 to 1
	Remaining time.Duration `json:"remaining"` // estimate, in nanoseconds; 0 = unknown
	Error     string        `json:"error"`     // of the last attempt; "" = it went well
}

// ReplayResult is what a replay has done.
type ReplayResult struct {
	ID        string `json:"id"`        // "" for a dry run
	Published int64  `json:"published"` // events, earlier runs included
	// Refused are the events that can never be published there, and Held is the
	// number of later ones of their keys, left out for them.
	Refused []ReplayFailure `json:"refused,omitempty"`
	Held    int64           `json:"held,omitempty"`
	Oldest  time.Time       `json:"oldest"` // when the oldest event was written that was retained; zero = none was
	Counts  []ReplayCount   `json:"counts,omitempty"`
}

// ReplayCount is one line of a dry run.
type ReplayCount struct {
	Topic  string `json:"topic"`
	Type   string `json:"type"`
	Events int64  `json:"events"`
}

// Replay publishes retained events again, marked with [HeaderReplayID], in the
// order of the log, a page after the other, so that the order of a key is kept
// within the replay. Consumers with an inbox swallow what they have handled.
//
// It publishes what the destination's pipeline had passed when the replay began:
// an event that it has still to publish, or has parked or discarded, would come
// before earlier ones of its key. To a destination whose name is not registered in
// the database goes everything that was committed when the replay began.
//
// The replay is stored in the database a few times a second. When ctx ends, or
// the process, it can be resumed; it repeats what it had not stored, at most a
// page and a quarter of a second. While database or broker are away, or a
// destination is bad, it waits. An event that can never be published there is left
// out and reported, and so are later ones of its topic and key, unless the
// destination's BlockKey is false; the keys can be replayed when that is mended.
// It ends with an error when more than a hundred events of a run are refused
// ([ErrRefused]; it can be resumed), with a [TruncatedError], and with [ErrNoReplay], [ErrReplayEnded], [ErrReplayTaken], [ErrForeignCluster],
// [ErrNotMigrated] or a [GrantError]. The result's ID is set once the replay is
// stored, whatever the error. The relay's grants are enough. It holds no
// transaction for longer than a page is read.
func Replay(ctx context.Context, pool *pgxpool.Pool, cfg ReplayConfig) (ReplayResult, error) {
	if err := cfg.validate(); err != nil {
		return ReplayResult{}, err
	}
	r, err := newReplayer(pool, cfg)
	if err != nil {
		return ReplayResult{}, err
	}
	if err := r.begin(ctx); err != nil {
		return r.result(), fmt.Errorf("replay: %w", err)
	}
	if cfg.DryRun {
		err = r.count(ctx)
	} else {
		err = r.run(ctx)
	}
	if err != nil {
		return r.result(), fmt.Errorf("replay: %w", err)
	}
	return r.result(), nil
}

func (c ReplayConfig) validate() error {
	if c.Rate < 0 {
		return &event.FieldError{Field: "ReplayConfig.Rate", Value: fmt.Sprint(c.Rate), Problem: "is negative", Hint: "events a second; 0 means 500"}
	}
	if c.Resume != "" {
		if c.DryRun {
			return &event.FieldError{Field: "ReplayConfig.DryRun", Value: "true", Problem: "does not go with Resume"}
		}
		return nil
	}
	w := c.Where
	if c.Reason == "" && !c.DryRun {
		return &event.FieldError{Field: "ReplayConfig.Reason", Problem: "is empty", Hint: "say why: it is stored with the replay"}
	}
	if !w.From.IsZero() && !w.Until.IsZero() && !w.From.Before(w.Until) {
		return &event.FieldError{Field: "ReplayConfig.Where.Until", Value: w.Until.Format(time.RFC3339), Problem: "is not after From"}
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"Types", w.Types}, {"Topics", w.Topics}} { // an empty key is one: no order
		for i, v := range list.values {
			if v == "" {
				return &event.FieldError{Field: fmt.Sprintf("ReplayConfig.Where.%s[%d]", list.field, i), Problem: "is empty", Hint: "no event has such a one"}
			}
		}
	}
	return nil
}

// TruncatedError says which part of a replay is gone for good. The replay has
// ended; what is left can be replayed by another one.
type TruncatedError struct {
	Parts []TruncatedPart
}

// TruncatedPart is one slot's part.
type TruncatedPart struct {
	Slot            int
	FirstID, LastID int64     // of the log: the part that had not been replayed
	From, Until     time.Time // when the slot's first and last event were written
}

// Error implements error.
func (e *TruncatedError) Error() string {
	text := ErrTruncated.Error()
	for i, p := range e.Parts {
		sep := ": "
		if i > 0 {
			sep = "; "
		}
		text += fmt.Sprintf("%slog ids %d to %d of slot %d, which was written from %s to %s", sep, p.FirstID, p.LastID, p.Slot,
			p.From.UTC().Format(time.RFC3339), p.Until.UTC().Format(time.RFC3339))
	}
	return text + "; replay what is left with a new one"
}

// Unwrap returns [ErrTruncated].
func (e *TruncatedError) Unwrap() error { return ErrTruncated }
