package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// explainPassed is the rule of a position for the event $1 of transaction $2, on q.
	explainPassed = `(coalesce($1::bigint <= q.h AND pg_visible_in_snapshot($2::text::xid8, q.s), false)
    OR coalesce($1::bigint <= q.c AND pg_visible_in_snapshot($2::text::xid8, q.s2), false))`
	// For each pipeline: who has the shard $3, what its latest position says, and
	// which of those that are kept was the first to say that the event is passed.
	sqlExplainPipelines = `SELECT p.name, p.filter, p.created_at, coalesce(l.owner, ''), coalesce(` + sqlLive + `, false),
  coalesce(i.report->p.name, '{}'::jsonb), (SELECT count(*)::int FROM {s}.instance i WHERE p.name = ANY(i.pipelines) AND ` + sqlLive + `),
  coalesce(latest.passed, false), latest.at, first.at, coalesce(first.owner, ''),
  EXISTS (SELECT FROM {s}.position q WHERE q.pipeline = p.name AND $3::smallint = ANY(q.shards) AND q.n < first.n),
  CASE WHEN latest.passed THEN 0 ELSE (SELECT count(*) FROM (SELECT FROM {s}.event e
    WHERE e.id > latest.up_to AND e.id < $1::bigint ORDER BY e.id LIMIT $4::bigint) x) END
FROM {s}.pipeline p
LEFT JOIN {s}.lease l ON l.pipeline = p.name AND l.shard = $3::smallint
LEFT JOIN {s}.instance i ON i.name = l.owner
LEFT JOIN LATERAL (SELECT q.at, greatest(q.h, q.c) AS up_to, ` + explainPassed + ` AS passed FROM {s}.position q
  WHERE q.pipeline = p.name AND $3::smallint = ANY(q.shards) ORDER BY q.n DESC LIMIT 1) latest ON true
LEFT JOIN LATERAL (SELECT q.n, q.at, q.owner FROM {s}.position q
  WHERE q.pipeline = p.name AND $3::smallint = ANY(q.shards) AND ` + explainPassed + ` ORDER BY q.n LIMIT 1) first ON true
ORDER BY p.name`
	sqlExplainHead = ` WHERE p.pipeline = $1 AND p.destination = $2 AND p.key = $3 AND p.blocks ORDER BY p.n LIMIT 1`
)

// standing is what the tables say of a pipeline and an event of the log.
type standing struct {
	name           string
	filter         Filter
	registered     time.Time
	owner          string
	live           bool
	report         pipelineReport
	running        int // live instances that run the pipeline
	passed         bool
	at             *time.Time // of the latest position
	firstAt        *time.Time // of the first one that passes the event
	firstOwner     string
	before         bool // there is one before that
	ahead          int64
	destination    string
	broker, topics string // states of circuits that are not closed
}

// story fills in what the pipelines have done with an event.
func (x *explainer) story(ctx context.Context, e *EventStory) error {
	for i := range e.Pipelines {
		if err := x.explainParked(ctx, &e.Pipelines[i]); err != nil {
			return err
		}
	}
	if e.Log == nil {
		return nil
	}
	list, err := x.standings(ctx, e)
	if err != nil {
		return err
	}
	for _, s := range list {
		if slices.ContainsFunc(e.Pipelines, func(p PipelineStory) bool { return p.Pipeline == s.name }) {
			continue // parked
		}
		p, err := x.explainLogged(ctx, e, s)
		if err != nil {
			return err
		}
		e.Pipelines = append(e.Pipelines, p)
	}
	slices.SortFunc(e.Pipelines, func(a, b PipelineStory) int { return cmp.Compare(a.Pipeline, b.Pipeline) })
	return nil
}

func (x *explainer) standings(ctx context.Context, e *EventStory) ([]standing, error) {
	rows, err := x.pool.Query(ctx, x.sql(sqlExplainPipelines), e.Log.ID, e.Log.Transaction, e.Log.Shard, BacklogCounted)
	if err != nil {
		return nil, fmt.Errorf("pipelines: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s standing, err error) {
		err = row.Scan(&s.name, &s.filter, &s.registered, &s.owner, &s.live, &s.report, &s.running, &s.passed, &s.at,
			&s.firstAt, &s.firstOwner, &s.before, &s.ahead)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: %w", err)
	}
	for i := range list {
		s := &list[i]
		s.destination = x.destination(s.name, e.Topic)
		s.broker, s.topics = s.report.Circuit, s.report.Topics[s.destination]
	}
	return list, nil
}

func (x *explainer) destination(pipeline, topic string) string {
	if x.cfg.Topic != nil {
		if to := x.cfg.Topic(pipeline, topic); to != "" {
			return to
		}
	}
	return topic
}

// explainLogged is about a pipeline that has not parked the event.
func (x *explainer) explainLogged(ctx context.Context, e *EventStory, s standing) (PipelineStory, error) {
	p := PipelineStory{Pipeline: s.name, Destination: s.destination, Reasons: []Reason{}}
	switch {
	case len(s.filter.Topics) > 0 && !slices.Contains(s.filter.Topics, e.Topic), len(s.filter.Types) > 0 && !slices.Contains(s.filter.Types, e.Type):
		p.State = StoryFiltered
		p.because(WhyFilter, "", "the pipeline publishes only %s", s.filter)
	case s.passed && s.firstOwner == "" && s.firstAt != nil:
		p.State = StorySkipped
		p.because(WhyBegan, "relay replay publishes it, if it should be there", "the pipeline was registered at %s and began behind it", stamp(s.registered))
	case s.passed:
		p.published(e, s)
	default:
		p.State, p.Ahead = StoryWaiting, s.ahead
		if err := x.explainWaiting(ctx, e, s, &p); err != nil {
			return p, err
		}
	}
	return p, nil
}

// published says what positions prove, and no more.
func (p *PipelineStory) published(e *EventStory, s standing) {
	p.State, p.Exact, p.Instance = StoryPublished, s.before, s.firstOwner
	if s.firstAt != nil {
		p.PublishedBy = *s.firstAt
	}
	text := "the broker confirmed it at some time up to %s: the pipeline's position passes it"
	if p.Exact {
		text = "the broker confirmed it by %s, when the first position that passes it was stored"
	}
	p.because(WhyPassed, "", text, stamp(p.PublishedBy))
	if s.firstOwner == "rebase" {
		p.because(WhyPassed, "", "that position is from relay rebase: every pipeline had passed the event before")
	}
	if s.registered.After(e.Log.WrittenAt) {
		p.because(WhyBegan, "", "the pipeline was registered later than the event was written, at %s: if it began with start now or where another one stood, it may never have published it", stamp(s.registered))
	}
	p.because(WhyPassed, "", "if it was parked for a while, or discarded longer ago than the retention, there is no trace of that")
}

func (x *explainer) explainWaiting(ctx context.Context, e *EventStory, s standing, p *PipelineStory) error {
	switch {
	case s.owner == "" && s.running == 0:
		p.because(WhyNoOwner, "start a relay: relay run", "nobody publishes shard %d: no running relay has the pipeline", e.Log.Shard)
	case s.owner == "":
		p.because(WhyNoOwner, "wait a second; if it stays so: relay doctor", "nobody holds the lease of shard %d, although %d running relays have the pipeline", e.Log.Shard, s.running)
	case !s.live && s.running == 0:
		p.because(WhySilent, "start a relay: relay run", "%s holds the lease of shard %d and has not been heard of for a lease; no other relay runs that could take over", s.owner, e.Log.Shard)
	case !s.live:
		p.because(WhySilent, "wait for the takeover, a second or two; if it stays so: relay doctor", "%s holds the lease of shard %d and has not been heard of for a lease", s.owner, e.Log.Shard)
	}
	if s.live && s.broker != "" {
		p.because(WhyCircuit, "see what the broker does; the relay goes on by itself", "the circuit of the broker is %s in %s: attempts to publish fail", s.broker, s.owner)
	}
	if s.live && s.topics != "" {
		p.because(WhyCircuit, "create the topic or permit it, see the relay's log; its events go out by themselves", "the circuit of topic %q is %s in %s", s.destination, s.topics, s.owner)
	}
	if e.Key != "" {
		if err := x.behind(ctx, p, e.Key); err != nil {
			return err
		}
	}
	if s.owner != "" && s.live && s.broker == "" && s.topics == "" && p.Behind == nil {
		last := "never"
		if s.at != nil {
			last = stamp(*s.at)
		}
		p.because(WhyInLine, "if the number does not fall: relay status --watch", "%s publishes its shard; %s events of the log before it, position stored at %s",
			s.owner, atMost(s.ahead), last)
	}
	return nil
}

func atMost(n int64) string {
	if n == BacklogCounted {
		return fmt.Sprintf("%d or more", n)
	}
	return fmt.Sprint(n)
}

// behind finds the parked event at the head of the topic and key.
func (x *explainer) behind(ctx context.Context, p *PipelineStory, key string) error {
	head, err := scanParked(x.pool.QueryRow(ctx, x.sql(`SELECT `+parkedStory()+sqlExplainHead), p.Pipeline, p.Destination, key))
	if errors.Is(err, pgx.ErrNoRows) || err == nil && p.Parked != nil && head.N == p.Parked.N {
		return nil
	}
	if err != nil {
		return fmt.Errorf("parked key: %w", err)
	}
	p.Behind = &head
	p.because(WhyParkedKey, fmt.Sprintf("relay dlq show %[1]d; then relay dlq redrive --n %[1]d or relay dlq discard --n %[1]d: what is behind it follows", head.N),
		"event %s, number %d, of the same topic and key is parked since %s, %s after %d attempts%s", head.EventID, head.N, stamp(head.ParkedAt), head.State, head.Attempts, reasonOf(head))
	return nil
}

func reasonOf(e ParkedEvent) string {
	if e.Reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", e.Class, e.Reason)
}

// explainParked is about a pipeline that has parked the event.
func (x *explainer) explainParked(ctx context.Context, p *PipelineStory) error {
	e := p.Parked
	switch e.State {
	case stateBlocked:
		if err := x.behind(ctx, p, e.Key); err != nil {
			return err
		}
		if p.Behind == nil {
			p.because(WhyParkedKey, "", "it waited behind an event of its key that has just gone, and follows by itself")
		}
	case stateRetrying:
		p.because(WhyFailed, "it is tried again by itself, as soon as a relay has its shard", "%d attempts failed%s; the next one is due at %s", e.Attempts, reasonOf(*e), stamp(e.NextAttemptAt))
	case stateDead:
		p.because(WhyFailed, fmt.Sprintf("mend the cause, then relay dlq redrive --n %[1]d; or relay dlq discard --n %[1]d", e.N), "%d attempts failed%s; it waits for you since %s", e.Attempts, reasonOf(*e), stamp(e.ParkedAt))
	case stateDiscarded:
		p.because(WhyDiscarded, "relay replay leaves it out; write a new event if it is needed", "%s discarded it at %s: %s", e.ActionBy, stamp(e.ActionAt), e.ActionReason)
	}
	if e.MayBeOut {
		p.because(WhyUnanswered, "look at the broker before you discard or write it anew", "an attempt is under way, or ended without an answer: the broker may have it")
	}
	return nil
}

func (p *PipelineStory) because(kind, cure, format string, args ...any) {
	p.Reasons = append(p.Reasons, Reason{Kind: kind, Text: fmt.Sprintf(format, args...), Cure: cure})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
