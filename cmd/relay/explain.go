package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

func newExplain() *cobra.Command {
	var at place
	var source string
	var out form
	cmd := &cobra.Command{
		Use:   "explain EVENT-ID --config relay.yaml",
		Short: "Say where an event is, and why",
		Long: `Say where an event is, and why: still in an open transaction and in whose, waiting
for a relay, a broker or an earlier event of its key, parked, left out by a filter,
published where and by when as far as the stored positions prove it, handled or put
aside by which consumer of the configuration's "inboxes", truncated, or never written.

It changes nothing and works whether relays run or not. The beginning of an id will do
(8 hex digits or more). With several databases all are asked, unless --database names
one. It does not print payloads: relay dlq show does, of events that were put aside.

The relay's role sees who has a transaction open, but since when and with which
statement only if it is granted pg_read_all_stats.

It exits with 0 when it could ask everybody, found or not, and with 1 otherwise. With
--json one object is printed for each database.`,
		Example: `  relay explain 0198f0c4-7a1b-7c3d-8e4f-5a6b7c8d9e0f --config relay.yaml
  relay explain 0198f0c4 --json | jq '.events[].pipelines[].reasons'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, list, err := at.each()
			if err != nil {
				return err
			}
			e := explainer{config: c, path: at.path, id: args[0], source: source}
			stories := e.ask(cmd.Context(), list)
			for _, s := range stories {
				if out.json {
					err = errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(s))
				} else {
					_, werr := fmt.Fprint(cmd.OutOrStdout(), s.text(e))
					err = errors.Join(err, werr)
				}
			}
			return errors.Join(err, failures(stories))
		},
	}
	at.flags(cmd)
	cmd.Flags().StringVar(&source, "source", "", "the event's source, where several have the id or the log does not have it any more")
	out.flag(cmd)
	return cmd
}

// explainer asks the databases of a configuration for an event.
type explainer struct {
	config     config
	path       string
	id, source string
	patience   time.Duration // with one database; 0 = explainTimeout
	scan       time.Duration // relay.ExplainConfig.ScanLimit
}

// databaseStory is a line of "relay explain --json".
type databaseStory struct {
	Database string `json:"database,omitempty"`
	Error    string `json:"error,omitempty"`
	*relay.Explanation
	Consumers []consumerStory `json:"consumers"`

	pipelines []pipelineConfig
	err       error // Error is its text
}

// consumerStory is what a consumer knows of the event.
type consumerStory struct {
	Inbox string `json:"inbox"` // its name in the configuration
	Error string `json:"error,omitempty"`
	inbox.Sighting
}

const (
	// explainTimeout bounds the questions to one database.
	explainTimeout = time.Minute
	// explainAtOnce is how many databases are asked at once: one that does not answer
	// keeps none of the others waiting.
	explainAtOnce = 16
)

// ask returns what each database says; of several those that know nothing are left
// out if another one has the event.
func (e explainer) ask(ctx context.Context, list []databaseEntry) []databaseStory {
	all := make([]databaseStory, len(list))
	atOnce(len(list), func(i int) { all[i] = e.answer(ctx, list[i]) })
	var found []databaseStory
	known := false
	for _, s := range all {
		if s.Explanation == nil || len(s.Events) > 0 {
			found = append(found, s)
			known = known || s.Explanation != nil
		}
	}
	if known {
		all = found
	}
	var alike []consumerStory // of an event that no database has, the same for all
	for i := range all {
		switch {
		case all[i].Explanation == nil:
		case known:
			all[i].Consumers = e.consumers(ctx, all[i].Explanation)
		default:
			if alike == nil {
				alike = e.consumers(ctx, all[i].Explanation)
			}
			all[i].Consumers = alike
		}
	}
	return all
}

// atOnce calls f with 0 to n-1, several at a time.
func atOnce(n int, f func(i int)) {
	var g errgroup.Group
	g.SetLimit(explainAtOnce)
	for i := range n {
		g.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = g.Wait() // f tells its errors elsewhere
}

func (e explainer) answer(ctx context.Context, d databaseEntry) databaseStory {
	s := databaseStory{Database: d.Name, Consumers: []consumerStory{}, pipelines: d.Pipelines}
	story, err := e.outbox(ctx, d)
	if err != nil {
		s.Error, s.err = explained(err), err
	} else {
		s.Explanation = &story
	}
	return s
}

func (e explainer) outbox(ctx context.Context, d databaseEntry) (relay.Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(e.patience, explainTimeout))
	defer cancel()
	c := e.config
	c.Database, c.Pipelines = d.databaseConfig, d.Pipelines
	pool, err := openPool(ctx, c)
	if err != nil {
		return relay.Explanation{}, err
	}
	defer pool.Close()
	return relay.Explain(ctx, pool, relay.ExplainConfig{
		Schema: d.Schema, ID: e.id, Source: e.source, ScanLimit: e.scan,
		Topic: func(pipeline, topic string) string { return mappedTopic(d.Pipelines, pipeline, topic) },
	})
}

// mappedTopic is the topic at the broker of a pipeline of the configuration.
func mappedTopic(list []pipelineConfig, pipeline, topic string) string {
	for _, p := range list {
		if to := p.topic(); p.Name == pipeline && to != nil {
			return to(topic)
		}
	}
	return topic
}

// consumers asks the inboxes of the configuration. One that does not answer says so
// in its place.
func (e explainer) consumers(ctx context.Context, story *relay.Explanation) []consumerStory {
	id, source := story.ID, e.source
	if len(story.Events) > 0 {
		id, source = story.Events[0].EventID, story.Events[0].Source
	}
	seen := make([][]consumerStory, len(e.config.Inboxes))
	atOnce(len(seen), func(i int) { seen[i] = e.inbox(ctx, i, source, id) })
	return append([]consumerStory{}, slices.Concat(seen...)...)
}

// inbox asks the one with the number i.
func (e explainer) inbox(ctx context.Context, i int, source, id string) (list []consumerStory) {
	d := e.config.Inboxes[i]
	d.databaseConfig = d.copied() // the web page asks for several people at once
	v := &validator{file: e.path}
	database := v.checkDatabase(fmt.Sprintf("inboxes[%d]", i), &d.databaseConfig)
	if d.Name == "" {
		d.Name = database
	}
	seen, err := []inbox.Sighting(nil), v.err()
	if err == nil {
		seen, err = e.sightings(ctx, d, source, id)
	}
	if err != nil {
		list = append(list, consumerStory{Inbox: d.Name, Error: explained(err)})
	}
	for _, s := range seen {
		list = append(list, consumerStory{Inbox: d.Name, Sighting: s})
	}
	return list
}

func (e explainer) sightings(ctx context.Context, d inboxEntry, source, id string) ([]inbox.Sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(e.patience, explainTimeout))
	defer cancel()
	pool, err := openPool(ctx, config{Database: d.databaseConfig})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return inbox.Sightings(ctx, pool, d.Schema, source, id)
}

// failures is the exit code: somebody could not be asked.
func failures(list []databaseStory) error {
	asked := map[string]bool{} // and whether it answered
	for _, s := range list {
		asked["database "+s.Database] = s.Error == ""
		for _, c := range s.Consumers {
			asked["inbox "+c.Inbox] = c.Error == ""
		}
	}
	silent := 0
	for _, answered := range asked {
		if !answered {
			silent++
		}
	}
	if silent == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d did not answer", silent, len(asked))
}
