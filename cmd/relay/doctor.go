package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/outboxkit/outboxkit/relay"
)

func newDoctor() *cobra.Command {
	var at place
	var writer string
	var out form
	cmd := &cobra.Command{
		Use:   "doctor --config relay.yaml",
		Short: "Look for what is wrong, or will be, and say what to do about it",
		Long: `Look through everything that the configuration names for what keeps events from
being published or handled, or will, and say what to do about it:

  databases  reachable, a primary, migrated, this log's own, clocks; rights of the
             relay's and the writers' roles; leases; pipelines that nobody runs; long and
             prepared transactions, replication slots, slots of the log that cannot be
             truncated and by whom; indexes and the plan of the page query; settings that
             lose commits; events that wait for a person
  Kafka      reachable; topics there, with leaders, copies and copies in sync;
             min.insync.replicas, unclean leader election; retention against the window
             of the inboxes (acks are always all)
  RabbitMQ   reachable; exchange and queues there; with rabbitmq.management in the
             configuration also kind, single active consumer, delivery limit, limits that
             drop messages, dead-letter loops
  registry   reachable
  inboxes    reachable, migrated, clocks, rights, dead letters

Which topics: those of the filters, and of the latest ten thousand events.
It changes nothing. Run it as the relay's role, granted pg_read_all_stats.

It exits with 0 if all is well, with 1 on warnings, with what could not be checked, and
when it could not run, and with 3 on failures: something stands still, or is not as
promised. With --json each finding is an object on a line.`,
		Example: `  relay doctor --config relay.yaml
  relay doctor --json | jq 'select(.verdict != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, list, err := at.each()
			if err != nil {
				return err
			}
			d := &doctor{config: c, path: at.path, writer: writer}
			d.examine(cmd.Context(), list)
			if err := d.print(cmd.OutOrStdout(), out.json); err != nil {
				return err
			}
			return d.verdict()
		},
	}
	at.flags(cmd)
	cmd.Flags().StringVar(&writer, "writer", "", "`role` of services that write events (default outbox_writer, if there is one)")
	out.flag(cmd)
	return cmd
}

// doctor collects findings.
type doctor struct {
	config   config
	path     string
	writer   string
	findings []subjectFinding
	windows  []window // of the inboxes' consumers
}

// subjectFinding is a line of "relay doctor --json".
type subjectFinding struct {
	Subject string `json:"subject"` // for example "database shop", "pipeline kafka"
	relay.Finding
}

// doctorLimit bounds the questions to one server.
const doctorLimit = time.Minute

func (d *doctor) add(subject, check, verdict, cure, format string, args ...any) {
	d.findings = append(d.findings, subjectFinding{subject, relay.Finding{Check: check, Verdict: verdict, Detail: fmt.Sprintf(format, args...), Cure: cure}})
}

// patient is a broker with all topics that are published there.
type patient struct {
	pipeline pipelineConfig
	topics   []string
}

func (d *doctor) examine(ctx context.Context, list []databaseEntry) {
	var patients []*patient
	index := map[string]*patient{}
	for _, e := range list {
		topics := d.database(ctx, e)
		for _, p := range e.Pipelines {
			key, err := yaml.Marshal(p)
			if err != nil {
				key = []byte(p.Name)
			}
			found := index[string(key)]
			if found == nil {
				found = &patient{pipeline: p}
				index[string(key)] = found
				patients = append(patients, found)
			}
			found.topics = append(found.topics, p.published(topics)...)
		}
	}
	d.inboxes(ctx)
	for _, p := range patients {
		slices.Sort(p.topics)
		p.topics = slices.Compact(p.topics)
		d.broker(ctx, *p)
	}
}

func (d *doctor) broker(ctx context.Context, p patient) {
	ctx, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	if p.pipeline.Kafka != nil {
		d.kafka(ctx, p)
	} else {
		d.rabbitmq(ctx, p)
	}
	d.registry(ctx, p)
}

// written is a topic and a type of events in the log.
type written struct{ topic, typ string }

// database returns what has been written lately.
func (d *doctor) database(ctx context.Context, e databaseEntry) []written {
	ctx, cancel := context.WithTimeout(ctx, 5*doctorLimit)
	defer cancel()
	subject := strings.TrimSpace("database " + e.Name)
	c := d.config
	c.Database, c.Pipelines = e.databaseConfig, e.Pipelines
	pool, err := openPool(ctx, c)
	if err != nil {
		d.add(subject, "postgres", relay.VerdictFailure, "", "%s", explained(err))
		return nil
	}
	defer pool.Close()
	cfg := relay.DiagnoseConfig{Schema: e.Schema, Retention: d.config.Retention.value(), Writer: d.writer, Pipelines: map[string]relay.Filter{}}
	for _, p := range e.Pipelines {
		cfg.Pipelines[p.Name] = p.filter()
	}
	for _, f := range relay.Diagnose(ctx, pool, cfg) {
		d.findings = append(d.findings, subjectFinding{subject, f})
	}
	schema := e.Schema
	if schema == "" {
		schema = "outbox"
	}
	var list []written
	rows, err := pool.Query(ctx, `SELECT DISTINCT topic::text, type::text FROM (SELECT topic, type FROM `+schema+`.event ORDER BY id DESC LIMIT 10000) e LIMIT 500`)
	if err != nil {
		return nil // has been found
	}
	defer rows.Close()
	for rows.Next() {
		var w written
		if rows.Scan(&w.topic, &w.typ) == nil {
			list = append(list, w)
		}
	}
	return list
}

// published are the topics at the broker, of its filter and of what was written.
func (p pipelineConfig) published(list []written) (topics []string) {
	f := p.filter()
	mapped := p.topic()
	add := func(topic string) {
		if mapped != nil {
			if to := mapped(topic); to != "" {
				topic = to
			}
		}
		topics = append(topics, topic)
	}
	for _, topic := range f.Topics {
		add(topic)
	}
	for _, w := range list {
		if (len(f.Topics) == 0 || slices.Contains(f.Topics, w.topic)) && (len(f.Types) == 0 || slices.Contains(f.Types, w.typ)) {
			add(w.topic)
		}
	}
	return topics
}

func (d *doctor) print(w io.Writer, asJSON bool) error {
	last := ""
	for _, f := range d.findings {
		if asJSON {
			if err := json.NewEncoder(w).Encode(f); err != nil {
				return err
			}
			continue
		}
		if f.Subject != last {
			last = f.Subject
			if _, err := fmt.Fprintln(w, printable(f.Subject)); err != nil {
				return err
			}
		}
		mark := f.Verdict
		if mark != relay.VerdictOK {
			mark = strings.ToUpper(mark)
		}
		text := fmt.Sprintf("  %-8s %-21s %s\n", mark, f.Check, printable(f.Detail))
		if f.Cure != "" {
			text += fmt.Sprintf("  %-8s %-21s → %s\n", "", "", printable(f.Cure))
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// diagnosed is a verdict with the exit code that stands for it.
type diagnosed struct {
	error
	code int
}

// ExitCode is what the process ends with.
func (d diagnosed) ExitCode() int { return d.code }

// verdict is the exit code.
func (d *doctor) verdict() error {
	count := map[string]int{}
	for _, f := range d.findings {
		count[f.Verdict]++
	}
	err := fmt.Errorf("%d failures, %d warnings, %d not checked", count[relay.VerdictFailure], count[relay.VerdictWarning], count[relay.VerdictUnknown])
	switch {
	case count[relay.VerdictFailure] > 0:
		return diagnosed{err, exitFound}
	case count[relay.VerdictWarning]+count[relay.VerdictUnknown] > 0:
		return diagnosed{err, exitFailed}
	case len(d.findings) == 0:
		return errors.New("nothing was examined")
	}
	return nil
}
