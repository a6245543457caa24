package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/relay"
)

func (d *doctor) kafka(ctx context.Context, p patient) {
	subject := "pipeline " + p.pipeline.Name
	list, err := kafka.Inspect(ctx, p.pipeline.Kafka.config(slog.New(slog.DiscardHandler)), p.topics)
	if err != nil {
		d.add(subject, "kafka", relay.VerdictFailure, "see whether the brokers run, and whether addresses, TLS and SASL settings are right", "no broker answers: %v", err)
		return
	}
	d.add(subject, "kafka", relay.VerdictOK, "", "answers; the relay always waits for all copies in sync (acks=all)")
	if len(list) == 0 {
		d.add(subject, "topics", relay.VerdictOK, "", "none to look at: nothing has been written yet, and the filter names none")
	}
	for _, t := range list {
		d.topic(subject, t)
	}
}

// topic judges one topic.
func (d *doctor) topic(subject string, t kafka.TopicState) {
	before := len(d.findings)
	name := fmt.Sprintf("topic %q", t.Topic)
	bad := func(verdict, cure, format string, args ...any) {
		d.add(subject, "topics", verdict, cure, "%s %s", name, fmt.Sprintf(format, args...))
	}
	set := func(setting string) string {
		return fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s", t.Topic, setting)
	}
	if t.Err != nil {
		bad(relay.VerdictFailure, "create it, or permit this user to describe it; its events are parked until then", "cannot be used: %v", t.Err)
		return
	}
	if t.Leaderless > 0 {
		bad(relay.VerdictFailure, "bring the brokers back that hold them", "has no leader for %d of %d partitions: their events wait", t.Leaderless, t.Partitions)
	}
	if t.Unsettled != nil {
		bad(relay.VerdictUnknown, "permit this user DescribeConfigs on the topic", "does not tell its settings: %v", t.Unsettled)
		return
	}
	switch {
	case t.MinInSync > t.InSync:
		bad(relay.VerdictFailure, "bring the missing brokers back, or lower min.insync.replicas", "takes nothing: %d copies are in sync, min.insync.replicas is %d", t.InSync, t.MinInSync)
	case t.Replicas < 2:
		bad(relay.VerdictWarning, "give it a replication factor of 3 (kafka-reassign-partitions.sh)", "has one copy: a broker that is lost takes confirmed events with it")
	case t.MinInSync == 1:
		bad(relay.VerdictWarning, set("min.insync.replicas=2"), "has min.insync.replicas=1: while other copies lag, events are confirmed that one broker alone has")
	case t.MinInSync >= t.Replicas:
		bad(relay.VerdictWarning, "one copy more than min.insync.replicas, usually 3 and 2", "has %d copies and min.insync.replicas %d: one broker's restart stops it", t.Replicas, t.MinInSync)
	}
	if t.InSync < t.Replicas && t.MinInSync <= t.InSync {
		bad(relay.VerdictWarning, "see what the lagging broker does", "has partitions with %d of %d copies in sync", t.InSync, t.Replicas)
	}
	if t.Unclean {
		bad(relay.VerdictFailure, set("unclean.leader.election.enable=false"), "has unclean.leader.election.enable=true: confirmed events may be lost when a leader is")
	}
	d.retention(subject, t.Topic, t.Retention)
	if len(d.findings) == before {
		d.add(subject, "topics", relay.VerdictOK, "", "%s: %d partitions, %d copies, min.insync.replicas %d, keeps for %s", name, t.Partitions, t.Replicas, t.MinInSync, days(t.Retention))
	}
}

// retention compares how long the broker may deliver a message again with how long
// consumers remember that they have handled it. Which of them consume the topic is
// not known here: consumers of all inboxes are named.
func (d *doctor) retention(subject, topic string, keeps time.Duration) {
	var short []string
	for _, w := range d.windows {
		if keeps > time.Duration(w.days)*24*time.Hour {
			short = append(short, fmt.Sprintf("%s in inbox %s (%d days)", w.consumer, w.inbox, w.days))
		}
	}
	if len(short) > 0 {
		d.add(subject, "topics", relay.VerdictWarning, "if they consume it: set inbox.Config.WindowDays to the retention or more, at most 31, or keep messages for a shorter time",
			"topic %q keeps messages for %s, longer than consumers remember: %s. What comes, or comes again, later than that becomes a dead letter", topic, days(keeps), strings.Join(short, ", "))
	}
}

func days(d time.Duration) string {
	switch {
	case d == brokers.Forever:
		return "ever"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}
