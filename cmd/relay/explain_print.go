package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

// branch is a line of the tree, with what belongs to it.
type branch struct {
	name, what string
	notes      []string
}

func (s databaseStory) text(e explainer) string {
	var b strings.Builder
	title := "event " + e.id
	if s.Database != "" {
		title += " in database " + s.Database
	}
	switch {
	case s.Explanation == nil:
		fmt.Fprintf(&b, "%s: %s\n", printable(title), printable(s.Error))
	case s.Missing != nil:
		tree(&b, title+": not found", append(missingBranches(s.Missing), s.consumers()...))
	default:
		for i, event := range s.Events {
			branches := s.branches(event)
			if i == 0 {
				branches = append(branches, s.consumers()...)
			}
			tree(&b, "event "+event.EventID+strings.TrimPrefix(title, "event "+e.id), branches)
		}
	}
	return b.String()
}

// tree prints what others wrote so that it cannot steer the terminal.
func tree(b *strings.Builder, title string, branches []branch) {
	width := 0
	for _, br := range branches {
		width = max(width, len([]rune(br.name)))
	}
	fmt.Fprintln(b, printable(title))
	for i, br := range branches {
		arm, trunk := "├─", "│ "
		if i == len(branches)-1 {
			arm, trunk = "└─", "  "
		}
		fmt.Fprintf(b, "%s %-*s  %s\n", arm, width, printable(br.name), printable(br.what))
		for _, note := range br.notes {
			fmt.Fprintf(b, "%s %-*s  %s\n", trunk, width, "", printable(note))
		}
	}
	fmt.Fprintln(b)
}

func (s databaseStory) branches(e relay.EventStory) []branch {
	what := fmt.Sprintf("%s of %s, topic %q", e.Type, e.Source, e.Topic)
	if e.Key != "" {
		what += fmt.Sprintf(", key %q", shorten(e.Key, 60))
	}
	list := []branch{{name: "what", what: what}}
	if e.Log == nil {
		list = append(list, branch{name: "log", what: "truncated since; what follows is from the parked copies"})
	} else {
		list = append(list, branch{name: "log", what: fmt.Sprintf("committed; written at %s, id %d, slot %d, shard %d, transaction %s, %d bytes",
			e.Log.WrittenAt.UTC().Format(time.RFC3339Nano), e.Log.ID, e.Log.Slot, e.Log.Shard, e.Log.Transaction, e.Log.Bytes)})
	}
	for _, p := range e.Pipelines {
		br := branch{name: p.Pipeline, what: strings.ToUpper(p.State)}
		if where := whereTo(s.pipelines, p, e); p.State != relay.StoryFiltered && p.State != relay.StorySkipped {
			br.what += " " + where
		}
		br.notes = notes(p.Reasons)
		list = append(list, br)
	}
	for _, p := range s.pipelines {
		if !slices.ContainsFunc(e.Pipelines, func(story relay.PipelineStory) bool { return story.Pipeline == p.Name }) && e.Log != nil {
			list = append(list, branch{name: p.Name, what: "UNKNOWN to the database", notes: []string{"no relay has run this pipeline yet", "→ start one: relay run"}})
		}
	}
	return list
}

func notes(reasons []relay.Reason) (list []string) {
	for _, r := range reasons {
		list = append(list, r.Text)
		if r.Cure != "" {
			list = append(list, "→ "+r.Cure)
		}
	}
	return list
}

// whereTo is the destination, in the terms of the broker.
func whereTo(list []pipelineConfig, story relay.PipelineStory, e relay.EventStory) string {
	verb := "to"
	if story.State == relay.StoryWaiting || story.Parked != nil {
		verb = "on its way to"
	}
	for _, p := range list {
		switch {
		case p.Name != story.Pipeline:
		case p.Kafka != nil:
			return fmt.Sprintf("%s topic %q of Kafka %s", verb, story.Destination, strings.Join(p.Kafka.Brokers, ","))
		case p.RabbitMQ != nil:
			exchange, key := p.RabbitMQ.Exchange, rabbitmq.QueueName(story.Destination, e.Key, p.RabbitMQ.Queues)
			if route := p.RabbitMQ.route(); route != nil {
				exchange, key = route(&brokers.Message{Topic: story.Destination, Key: e.Key, Type: e.Type})
			}
			if exchange == "" {
				return fmt.Sprintf("%s queue %q of RabbitMQ %s", verb, key, host(p.RabbitMQ.URL))
			}
			return fmt.Sprintf("%s exchange %q with routing key %q of RabbitMQ %s", verb, exchange, key, host(p.RabbitMQ.URL))
		}
	}
	return fmt.Sprintf("%s %q (the configuration does not have the pipeline)", verb, story.Destination)
}

// host leaves the password out.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(its address cannot be read)"
	}
	return u.Host
}

func missingBranches(m *relay.MissingEvent) []branch {
	log := "empty"
	if !m.OldestAt.IsZero() {
		log = fmt.Sprintf("has events from %s to %s", m.OldestAt.UTC().Format(time.RFC3339), m.NewestAt.UTC().Format(time.RFC3339))
	}
	list := []branch{{name: "log", what: log}}
	if !m.DrawnAt.IsZero() {
		list = append(list, branch{name: "id", what: "drawn at " + m.DrawnAt.UTC().Format(time.RFC3339Nano)})
	}
	for _, r := range m.Reasons {
		br := branch{name: "why", what: r.Text}
		if r.Cure != "" {
			br.notes = append(br.notes, "→ "+r.Cure)
		}
		if r.Kind == relay.WhyAlike {
			for _, a := range m.Alike {
				br.notes = append(br.notes, fmt.Sprintf("%s  %s of %s", a.EventID, a.Type, a.Source))
			}
		}
		list = append(list, br)
	}
	return list
}

func (s databaseStory) consumers() (list []branch) {
	for _, c := range s.Consumers {
		if c.Error != "" {
			list = append(list, branch{name: c.Inbox, what: "NOT ASKED: " + c.Error})
			continue
		}
		br := branch{name: c.Consumer, what: strings.ToUpper(strings.ReplaceAll(c.State, "_", " ")) + " (inbox " + c.Inbox + ")"}
		switch {
		case c.Letter != nil && c.State == inbox.SeenHandled:
			br.notes = append(br.notes, fmt.Sprintf("after it had been put aside: dead letter %d", c.Letter.N))
		case c.Letter != nil:
			br.notes = append(br.notes,
				fmt.Sprintf("dead letter %d since %s, %d attempts (%s: %s)", c.Letter.N, c.Letter.StoredAt.UTC().Format(time.RFC3339), c.Letter.Attempts, c.Letter.Class, c.Letter.Reason),
				fmt.Sprintf("→ relay dlq show %d --inbox %s", c.Letter.N, c.Inbox))
		case c.State == inbox.SeenNot:
			br.notes = append(br.notes, "no trace: it has not arrived, is being handled, or is not for this consumer")
		case c.State == inbox.SeenForgotten:
			br.notes = append(br.notes, "older than what the consumer remembers: nobody can tell")
		}
		list = append(list, br)
	}
	return list
}
