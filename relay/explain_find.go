package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// explainSlack is how far the clock of whoever drew an id, and the time between
	// that and the INSERT, may be off for the quick search.
	explainSlack = 5 * time.Minute
	// explainRows bounds what a search returns.
	explainRows = 20
)

const (
	explainColumns = `e.event_id::text, e.source, e.type, e.topic, e.key, e.id, e.slot::int, {s}.shard(e.key, e.event_id)::int, e.xid::text, e.created_at,
  coalesce(octet_length(e.payload), 0)::bigint`
	sqlExplainFirst  = `SELECT id, created_at FROM {s}.event ORDER BY id LIMIT 1`
	sqlExplainLast   = `SELECT id, created_at FROM {s}.event ORDER BY id DESC LIMIT 1`
	sqlExplainFrom   = `SELECT id, created_at FROM {s}.event WHERE id >= $1::bigint ORDER BY id LIMIT 1`
	sqlExplainWindow = `SELECT ` + explainColumns + ` FROM {s}.event e
WHERE e.id >= $3::bigint AND e.id < $4::bigint AND e.event_id BETWEEN $1::text::uuid AND $2::text::uuid AND ($5 = '' OR e.source = $5)
ORDER BY e.id LIMIT $6::int`
	// There is no index on event_id: it would make every INSERT dearer for a question
	// that is asked by hand.
	sqlExplainScan = `SELECT ` + explainColumns + ` FROM {s}.event e
WHERE (e.event_id BETWEEN $1::text::uuid AND $2::text::uuid AND ($3 = '' OR e.source = $3)
  OR $4::boolean AND (right(e.event_id::text, 12) = right($1, 12) OR left(e.event_id::text, 18) = left($1, 18))) LIMIT $5::int`
	explainParkedWhere = `WHERE p.pipeline = ANY(ARRAY(SELECT name FROM {s}.pipeline)) AND p.event_id BETWEEN $1::text::uuid AND $2::text::uuid
  AND ($3 = '' OR p.source = $3) AND p.state `
)

// sought is the id that was asked for, or its beginning.
type sought struct {
	text        string // in the usual form
	full        bool
	low, high   string    // the ids that begin so
	timed       bool      // the id tells its time
	from, until time.Time // between which it was drawn
}

func parseSought(text string) (sought, error) {
	hex := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "urn:uuid:")
	hex = strings.ReplaceAll(strings.Trim(hex, "{}"), "-", "")
	if len(hex) < 8 || len(hex) > 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return sought{}, errNotAnID(text)
	}
	s := sought{
		text: dashed(hex), full: len(hex) == 32,
		low:  dashed(hex + strings.Repeat("0", 32-len(hex))),
		high: dashed(hex + strings.Repeat("f", 32-len(hex))),
	}
	if len(hex) < 13 || hex[12] == '7' { // a UUIDv7
		s.from, s.until = timeIn(s.low), timeIn(s.high)
		s.timed = s.until.Year() < 3000
	}
	return s, nil
}

// dashed writes hex digits as a UUID has them.
func dashed(hex string) string {
	var b strings.Builder
	for i, r := range hex {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// timeIn is the time in a UUIDv7.
func timeIn(id string) time.Time {
	ms, _ := strconv.ParseInt(strings.ReplaceAll(id, "-", "")[:12], 16, 64) // 48 bits of hex digits
	return time.UnixMilli(ms).UTC()
}

// search is what the log and the parked events gave.
type search struct {
	events   []EventStory // with the id
	alike    []EventStory // ids that look like it
	complete bool         // the whole log was searched
	first    logEnd
	last     logEnd
}

// logEnd is the oldest or newest event; the zero value says that there is none.
type logEnd struct {
	id int64
	at time.Time
}

// ids are the different ones that were found.
func (s *search) ids() []string {
	var list []string
	for _, e := range s.events {
		list = append(list, e.EventID)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (x *explainer) find(ctx context.Context) (s search, err error) {
	if s.first, err = x.end(ctx, sqlExplainFirst); err != nil {
		return s, err
	}
	if s.last, err = x.end(ctx, sqlExplainLast); err != nil {
		return s, err
	}
	if s.last.id > 0 && x.id.timed {
		if s.events, err = x.near(ctx, s.first.id, s.last.id); err != nil {
			return s, err
		}
	}
	parked, err := x.parked(ctx)
	if err != nil {
		return s, err
	}
	if len(s.events) == 0 && len(parked) == 0 {
		err = x.scan(ctx, &s)
	}
	s.add(parked)
	return s, err
}

// end returns the zero value if the log is empty.
func (x *explainer) end(ctx context.Context, query string, args ...any) (e logEnd, err error) {
	err = x.pool.QueryRow(ctx, x.sql(query), args...).Scan(&e.id, &e.at)
	if errors.Is(err, pgx.ErrNoRows) {
		return logEnd{}, nil
	}
	return e, err
}

// near looks among the events that were written about when the id was drawn.
func (x *explainer) near(ctx context.Context, first, last int64) ([]EventStory, error) {
	low, err := x.idAt(ctx, first, last, x.id.from.Add(-explainSlack))
	if err != nil {
		return nil, err
	}
	high, err := x.idAt(ctx, low, last, x.id.until.Add(explainSlack))
	if err != nil {
		return nil, err
	}
	return x.rows(ctx, sqlExplainWindow, x.id.low, x.id.high, low, high, x.cfg.Source, explainRows)
}

// idAt returns the lowest id, first <= id <= last+1, from which on events were
// written at a time or later, as far as ids and times go the same way: bisection,
// because only ids have an index.
func (x *explainer) idAt(ctx context.Context, first, last int64, at time.Time) (int64, error) {
	for low, high := first, last+1; ; {
		if low >= high {
			return high, nil
		}
		middle := low + (high-low)/2
		row, err := x.end(ctx, sqlExplainFrom, middle)
		switch {
		case err != nil:
			return 0, err
		case row.id != 0 && row.at.Before(at):
			low = row.id + 1
		default:
			high = middle
		}
	}
}

func (x *explainer) rows(ctx context.Context, query string, args ...any) ([]EventStory, error) {
	rows, err := x.pool.Query(ctx, x.sql(query), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (EventStory, error) {
		e := EventStory{Log: &LogEntry{}, Pipelines: []PipelineStory{}}
		err := row.Scan(&e.EventID, &e.Source, &e.Type, &e.Topic, &e.Key, &e.Log.ID, &e.Log.Slot, &e.Log.Shard, &e.Log.Transaction,
			&e.Log.WrittenAt, &e.Log.Bytes)
		return e, err
	})
}

// scan reads the whole log, for a limited time.
func (x *explainer) scan(ctx context.Context, s *search) error {
	if s.last.id == 0 {
		s.complete = true
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, x.cfg.ScanLimit)
	defer cancel()
	rows, err := x.rows(limited, sqlExplainScan, x.id.low, x.id.high, x.cfg.Source, x.id.full, explainRows)
	if err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			return nil
		}
		return err
	}
	s.complete = true
	for _, row := range rows {
		if x.matches(row) {
			s.events = append(s.events, row)
		} else {
			s.alike = append(s.alike, row)
		}
	}
	return nil
}

func (x *explainer) matches(e EventStory) bool {
	return e.EventID >= x.id.low && e.EventID <= x.id.high && (x.cfg.Source == "" || e.Source == x.cfg.Source)
}

// parked returns the parked events with the id, without payloads and headers.
func (x *explainer) parked(ctx context.Context) ([]ParkedEvent, error) {
	query := x.sql(`SELECT ` + parkedStory() + explainParkedWhere + `<> 'discarded'
UNION ALL SELECT ` + parkedStory() + explainParkedWhere + `= 'discarded' LIMIT 100`)
	return x.parkedRows(ctx, query, x.id.low, x.id.high, x.cfg.Source)
}

// parkedStory is parkedWhole without what may be large or secret.
func parkedStory() string {
	return strings.Replace(parkedWhole, "p.headers, p.payload", "NULL::jsonb, NULL::bytea", 1)
}

func (x *explainer) parkedRows(ctx context.Context, query string, args ...any) ([]ParkedEvent, error) {
	rows, err := x.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ParkedEvent, error) { return scanParked(row) })
	if err != nil {
		return nil, fmt.Errorf("parked events: %w", err)
	}
	slices.SortFunc(list, func(a, b ParkedEvent) int { return cmp.Compare(a.N, b.N) })
	return list, nil
}

// add gives parked events to their stories, or makes one where the log has none.
func (s *search) add(parked []ParkedEvent) {
	for _, p := range parked {
		i := slices.IndexFunc(s.events, func(e EventStory) bool { return e.EventID == p.EventID && e.Source == p.Source })
		if i < 0 {
			i = len(s.events)
			s.events = append(s.events, EventStory{
				EventID: p.EventID, Source: p.Source, Type: p.Type, Topic: p.Topic, Key: p.Key, Pipelines: []PipelineStory{},
			})
		}
		s.events[i].park(p)
	}
}

// park notes a parked copy. Of several only the last counts: one that was discarded
// may have been written again by a rebased log.
func (e *EventStory) park(p ParkedEvent) {
	story := PipelineStory{Pipeline: p.Pipeline, State: p.State, Destination: p.Destination, Parked: &p, Reasons: []Reason{}}
	for i := range e.Pipelines {
		if e.Pipelines[i].Pipeline == p.Pipeline {
			e.Pipelines[i] = story
			return
		}
	}
	e.Pipelines = append(e.Pipelines, story)
}
