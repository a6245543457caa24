package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/relay"
)

// routingConfig says which events a pipeline publishes, from where on, and under
// which topics.
type routingConfig struct {
	Filter filterConfig      `yaml:"filter"`
	Topics map[string]string `yaml:"topics" default:"as written by the service" doc:"the broker's topic by topic as written; may contain {topic}; * stands for all that have no line of their own"`
	Start  startConfig       `yaml:"start"`
	// BlockKey stays nil, which means true, where the file says nothing.
	BlockKey *bool `yaml:"block_key" default:"true" doc:"later events of a parked one's key queue behind it; false: they pass"`
}

type filterConfig struct {
	Topics []string `yaml:"topics" default:"all" doc:"only events of these topics, as written by the service; a changed filter is refused until relay pipeline filter accepts it"`
	Types  []string `yaml:"types" default:"all" doc:"only events of these types"`
}

type startConfig struct {
	At       string `yaml:"at" default:"oldest" values:"oldest, now" doc:"where the pipeline begins when its name is first seen; later it goes on where it was"`
	Pipeline string `yaml:"pipeline" doc:"or where this other pipeline stands, to move a stream: nothing is left out"`
}

// Values of start.at.
const (
	startOldest = "oldest"
	startNow    = "now"
)

const anyTopic = "*"

func (v *validator) checkRouting(at string, p *pipelineConfig) {
	for i, topic := range p.Filter.Topics {
		if topic == "" {
			v.fail(fmt.Sprintf("%s.filter.topics[%d]", at, i), "is empty: no event has such a topic")
		}
	}
	for i, typ := range p.Filter.Types {
		if typ == "" {
			v.fail(fmt.Sprintf("%s.filter.types[%d]", at, i), "is empty: no event has such a type")
		}
	}
	for from, to := range p.Topics {
		if to == "" {
			v.fail(at+".topics."+from, "is empty: write the broker's topic, or leave the line out")
		}
		v.template(at+".topics."+from, to, "{topic}")
	}
	if p.Start.At != "" && p.Start.Pipeline != "" {
		v.fail(at+".start", "has both at and pipeline: choose one")
	}
	v.oneOf(at+".start.at", &p.Start.At, startOldest, startNow)
	if p.Start.Pipeline != "" && p.Start.Pipeline == p.Name {
		v.fail(at+".start.pipeline", "%q is the pipeline itself", p.Name)
	}
	if p.RabbitMQ != nil && p.RabbitMQ.RoutingKey != "" {
		v.template(at+".rabbitmq.routing_key", p.RabbitMQ.RoutingKey, "{topic}", "{type}")
		if p.RabbitMQ.Queues > 0 {
			v.fail(at+".rabbitmq.routing_key", "cannot stand beside queues, which makes routing keys of its own: choose one")
		}
	}
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func (v *validator) template(field, text string, allowed ...string) {
	rest := placeholder.ReplaceAllStringFunc(text, func(p string) string {
		for _, a := range allowed {
			if p == a {
				return ""
			}
		}
		return p
	})
	if strings.ContainsAny(rest, "{}") {
		v.fail(field, "%q has a placeholder that is not known: use %s", text, strings.Join(allowed, ", "))
	}
}

func (r routingConfig) filter() relay.Filter {
	return relay.Filter{Topics: r.Filter.Topics, Types: r.Filter.Types}
}

func (r routingConfig) start() relay.Start {
	return relay.Start{Now: r.Start.At == startNow, Pipeline: r.Start.Pipeline}
}

// topic returns the mapping, nil if there is none. A topic of its own line goes
// before "*".
func (r routingConfig) topic() func(string) string {
	if len(r.Topics) == 0 {
		return nil
	}
	return func(topic string) string {
		to, ok := r.Topics[topic]
		if !ok {
			to = r.Topics[anyTopic]
		}
		return strings.ReplaceAll(to, "{topic}", topic)
	}
}

// route returns the function that makes routing keys, nil if there is none.
func (q *rabbitmqConfig) route() func(*brokers.Message) (exchange, routingKey string) {
	if q.RoutingKey == "" {
		return nil
	}
	return func(m *brokers.Message) (exchange, routingKey string) {
		return q.Exchange, strings.NewReplacer("{topic}", m.Topic, "{type}", m.Type).Replace(q.RoutingKey)
	}
}
