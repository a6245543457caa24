package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/relay"
)

func (d *doctor) rabbitmq(ctx context.Context, p patient) {
	subject := "pipeline " + p.pipeline.Name
	q := p.pipeline.RabbitMQ
	exchanges, queues := q.places(p.topics)
	s, err := rabbitmq.Inspect(ctx, q.config(slog.New(slog.DiscardHandler)), exchanges, queues)
	if err != nil {
		d.add(subject, "rabbitmq", relay.VerdictFailure, "see whether it runs, and whether url and TLS settings are right", "does not answer: %v", err)
		return
	}
	d.add(subject, "rabbitmq", relay.VerdictOK, "", "version %s answers", s.Version)
	for _, name := range slices.Sorted(maps.Keys(s.MissingExchanges)) {
		d.add(subject, "exchange", relay.VerdictFailure, "declare it, or permit this user to use it; its events are parked until then", "exchange %q cannot be used: %v", name, s.MissingExchanges[name])
	}
	there := 0
	for _, found := range s.Queues {
		switch {
		case found.Err == nil:
			there++
		case q.Declare:
			d.add(subject, "queues", relay.VerdictOK, "", "queue %q is not there yet: the relay declares it with its first message", found.Name)
		default:
			d.add(subject, "queues", relay.VerdictFailure, "declare it as a quorum queue with a single active consumer, or set declare: true; its events are parked until then",
				"queue %q cannot be used: %v", found.Name, found.Err)
		}
	}
	if len(exchanges) > 0 && len(queues) == 0 {
		d.add(subject, "queues", relay.VerdictOK, "", "bound by somebody else to exchange %s; an event that no queue takes is parked", strings.Join(exchanges, ", "))
	}
	d.managed(ctx, subject, q, s, there)
}

// places are the exchanges and queues that messages of topics go to, as far as the
// configuration tells.
func (q *rabbitmqConfig) places(topics []string) (exchanges, queues []string) {
	if q.Exchange != "" {
		exchanges = append(exchanges, q.Exchange)
	}
	for _, topic := range topics {
		switch route := q.route(); {
		case route != nil && q.Exchange == "":
			if strings.Contains(q.RoutingKey, "{type}") {
				continue // which types go to which queue is not known here
			}
			_, key := route(&brokers.Message{Topic: topic})
			queues = append(queues, key)
		case route == nil && (q.Exchange == "" || q.Declare):
			queues = append(queues, rabbitmq.QueueNames(topic, q.Queues)...)
		}
	}
	slices.Sort(queues)
	return exchanges, slices.Compact(queues)
}

// managed asks the management API for what AMQP does not tell.
func (d *doctor) managed(ctx context.Context, subject string, q *rabbitmqConfig, s rabbitmq.ServerState, there int) {
	if there == 0 {
		return
	}
	if q.Management == "" {
		d.add(subject, "queue settings", relay.VerdictUnknown, "set rabbitmq.management to the address of the management API, for example https://user:password@host:15671",
			"AMQP does not tell the kind of queues, their limits and policies")
		return
	}
	address, err := expand(q.Management)
	var m *management
	if err == nil {
		m, err = newManagement(address, q.url(), q.TLS.httpClient())
	}
	if err != nil {
		d.add(subject, "queue settings", relay.VerdictUnknown, "mend rabbitmq.management in the configuration", "%v", err)
		return
	}
	for _, found := range s.Queues {
		if found.Err != nil {
			continue
		}
		info, err := m.queue(ctx, found.Name)
		if err != nil {
			d.add(subject, "queue settings", relay.VerdictUnknown, "see whether the management plugin is enabled, and whether the user has the tag monitoring or management", "%v", err)
			return
		}
		before := len(d.findings)
		for _, f := range info.judge(s.Version) {
			d.findings = append(d.findings, subjectFinding{subject, f})
		}
		d.deadLetters(ctx, subject, m, info)
		if len(d.findings) == before {
			d.add(subject, "queue settings", relay.VerdictOK, "", "queue %q: quorum, durable, one active consumer, drops nothing", info.Name)
		}
	}
	d.httpClock(ctx, m.client, subject, "the broker's", m.base)
}

// deadLetters follows a queue's dead letters through an exchange that has a name: the
// default one is judged without.
func (d *doctor) deadLetters(ctx context.Context, subject string, m *management, q managedQueue) {
	exchange, _ := q.text("dead-letter-exchange")
	if exchange == "" {
		return
	}
	const check = "queue settings"
	list, there, err := m.bindings(ctx, exchange)
	switch {
	case err != nil:
		d.add(subject, check, relay.VerdictUnknown, "", "where queue %q dead-letters to could not be seen: %v", q.Name, err)
	case !there:
		d.add(subject, check, relay.VerdictFailure, "declare the exchange, and bind a queue to it", "queue %q dead-letters to exchange %q, which does not exist: what is dead-lettered is lost", q.Name, exchange)
	case len(list) == 0:
		d.add(subject, check, relay.VerdictFailure, "bind a queue to it", "queue %q dead-letters to exchange %q, to which nothing is bound: what is dead-lettered is lost", q.Name, exchange)
	}
	for _, b := range list {
		if b.Kind == "queue" && b.Destination == q.Name {
			d.add(subject, check, relay.VerdictFailure, "bind another queue to it, and not this one", "queue %q dead-letters to exchange %q, to which it is bound itself (routing key %q): what is dead-lettered may go round for ever", q.Name, exchange, b.Key)
		}
	}
}

// judge says what is unsafe about a queue, nothing if it is as it should be.
func (q managedQueue) judge(version string) []relay.Finding {
	var list []relay.Finding
	add := func(verdict, cure, format string, args ...any) {
		list = append(list, relay.Finding{Check: "queue settings", Verdict: verdict, Cure: cure, Detail: fmt.Sprintf("queue %q ", q.Name) + fmt.Sprintf(format, args...)})
	}
	const anew = "make a new one and move (relay pipeline with start: {pipeline: …}): a queue's kind cannot be changed"
	if q.Type != "quorum" {
		add(relay.VerdictWarning, anew, "is a %s queue: it has one copy, and what it gives back comes out of order", q.Type)
	}
	if !q.Durable {
		add(relay.VerdictFailure, anew, "is not durable: a restart of the broker loses confirmed events")
	}
	if on, _ := q.setting("single-active-consumer").(bool); !on {
		add(relay.VerdictWarning, anew+"; or see to it that one process alone consumes it", "has no single active consumer: deliveries of several processes overtake each other")
	}
	target, routing := q.text("dead-letter-exchange")
	limit, limited := q.number("delivery-limit")
	if number, _, _ := strings.Cut(version, "."); !limited && q.Type == "quorum" {
		if major, err := strconv.Atoi(number); err == nil && major >= 4 {
			limit, limited = 20, true // the default since version 4
		}
	}
	if limited && limit >= 0 && q.Type == "quorum" {
		if !routing {
			add(relay.VerdictFailure, "declare it with x-delivery-limit -1, or set a policy with a dead-letter-exchange", "drops a message after %d deliveries, which restarts of a consumer use up; the inbox counts attempts itself", limit)
		} else {
			add(relay.VerdictWarning, "x-delivery-limit -1", "dead-letters a message after %d deliveries, which restarts of a consumer use up; later ones of its key overtake it", limit)
		}
	}
	if key, given := q.text("dead-letter-routing-key"); routing && target == "" && (key == q.Name || !given) {
		add(relay.VerdictFailure, "let dead-letter-exchange and dead-letter-routing-key name another queue", "dead-letters to itself: what is dead-lettered goes round for ever, or is dropped")
	}
	if ttl, ok := q.number("message-ttl"); ok {
		add(relay.VerdictWarning, "take message-ttl away, or make it longer than consumers may be away", "takes away messages that have waited for %d ms", ttl)
	}
	for _, name := range []string{"max-length", "max-length-bytes"} {
		most, ok := q.number(name)
		if overflow, _ := q.text("overflow"); ok && !strings.HasPrefix(overflow, "reject-publish") {
			add(relay.VerdictFailure, "overflow: reject-publish, so that the relay waits instead", "drops its oldest messages beyond a %s of %d", name, most)
		}
	}
	return list
}
