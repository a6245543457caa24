package main

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/schema/registry"
)

// validator collects all problems of a configuration.
type validator struct {
	file     string
	origins  map[string]origin // by field, for example pipelines[1].kafka.brokers
	problems []error
	warnings []string        // what is no problem, but most likely a mistake
	refused  map[string]bool // one problem of a field is enough
}

func (v *validator) fail(field, format string, args ...any) {
	v.refuse(v.place(field), field, fmt.Sprintf(format, args...))
}

func (v *validator) refuse(place origin, field, problem string) {
	if v.refused[field] && field != "" {
		return
	}
	if v.refused == nil {
		v.refused = map[string]bool{}
	}
	v.refused[field] = true
	v.problems = append(v.problems, &configError{place: place, field: field, problem: problem})
}

func (v *validator) err() error { return errors.Join(v.problems...) }

// place is where a field such as "pipelines[1].kafka.brokers" was set; where it is
// missing, the place of the nearest parent in the file.
func (v *validator) place(field string) origin {
	for at := field; ; at = at[:max(0, strings.LastIndexAny(at, ".["))] {
		if o, ok := v.origins[at]; ok && (at == field || o.name == v.file) {
			return o
		}
		if at == "" {
			return origin{name: v.file}
		}
	}
}

func (v *validator) check(c *config) {
	v.checkDatabases(c)
	v.duration("lease", c.Lease)
	if d := c.Lease.value(); d > 0 && d < time.Second {
		v.fail("lease", "%q is too short: at least 1s", string(c.Lease))
	}
	v.duration("retention", c.Retention)
	v.duration("drain_timeout", c.DrainTimeout)
	v.oneOf("log.format", &c.Log.Format, "text", "json")
	if _, err := c.Log.level(); err != nil {
		v.fail("log.level", "%q is not a level: use debug, info, warn or error", c.Log.Level)
	}
	v.checkAdmin(&c.Admin)
	v.checkHide(c)
}

func (v *validator) checkPipelines(field string, list []pipelineConfig) {
	if len(list) == 0 {
		v.fail(field, "is empty: describe at least one, with a name and kafka or rabbitmq")
	}
	names := map[string]bool{}
	for i := range list {
		p, at := &list[i], fmt.Sprintf("%s[%d]", field, i)
		p.Name = v.required(at+".name", p.Name, "kafka")
		if names[p.Name] && p.Name != "" {
			v.fail(at+".name", "%q is used twice: every pipeline has its own position, found by its name", p.Name)
		}
		names[p.Name] = true
		v.checkPipeline(at, p)
		v.checkRouting(at, p)
	}
}

func (v *validator) checkPipeline(at string, p *pipelineConfig) {
	switch {
	case (p.Kafka == nil) == (p.RabbitMQ == nil):
		v.fail(at, "needs exactly one of kafka and rabbitmq")
	case p.Kafka != nil && len(p.Kafka.Brokers) == 0:
		v.fail(at+".kafka.brokers", "is empty: list host:port of at least one broker")
	case p.Kafka != nil:
		v.checkTLS(at+".kafka", p.Kafka.TLS)
		v.checkSASL(at+".kafka", p.Kafka)
		if p.Kafka.Compression != "" {
			v.oneOf(at+".kafka.compression", &p.Kafka.Compression, "snappy", "none", "gzip", "lz4", "zstd")
		}
		v.duration(at+".kafka.publish_timeout", p.Kafka.PublishTimeout)
		v.adapter(at+".kafka", p.Kafka.config(nil).Validate())
	case p.RabbitMQ != nil:
		problems := len(v.problems)
		p.RabbitMQ.URL = v.required(at+".rabbitmq.url", p.RabbitMQ.URL, "amqp://user:password@host:5672/")
		v.checkTLS(at+".rabbitmq", p.RabbitMQ.TLS)
		p.RabbitMQ.Password = v.optional(at+".rabbitmq.password", p.RabbitMQ.Password)
		if u, err := url.Parse(p.RabbitMQ.URL); err == nil && p.RabbitMQ.Password != "" && u.User.Username() == "" {
			v.fail(at+".rabbitmq.password", "is set, but the URL names no user: write amqp://user@host:5672/")
		}
		if len(v.problems) == problems {
			v.adapter(at+".rabbitmq", p.RabbitMQ.config(nil).Validate())
		}
	}
	v.checkWire(at, &p.Wire)
	v.warnPlainText(at, p)
}

func (v *validator) checkWire(at string, w *wireConfig) {
	v.oneOf(at+".wire.format", &w.Format, wireBare, wireConfluent, wireSingleObject)
	if w.Format == wireConfluent {
		w.Registry.URL = v.required(at+".wire.registry.url", w.Registry.URL, "https://registry:8081")
		w.Registry.Password = v.optional(at+".wire.registry.password", w.Registry.Password)
		w.Registry.Token = v.optional(at+".wire.registry.token", w.Registry.Token)
		v.checkTLS(at+".wire.registry", w.Registry.TLS)
		v.oneOf(at+".wire.registry.subject", &w.Registry.Subject, "topic", "record", "topic-record")
		if _, err := registry.New(w.Registry.config()); err != nil && w.Registry.URL != "" {
			v.adapter(at+".wire.registry", err)
		}
	} else if w.Registry.URL != "" {
		v.fail(at+".wire.registry", "is only used with wire.format: %s", wireConfluent)
	}
}

// goField is how the adapters' own errors name a field of their Config.
var goField = regexp.MustCompile(`^(?:\w+: )?(?:\w+\.)?\w*Config\.(\w+)\S* ?(.*)$`)

// adapter reports an error of an adapter's own check under the field's name in
// the file: ClientID and client_id differ, but all of ours are one word.
func (v *validator) adapter(at string, err error) {
	if err == nil {
		return
	}
	field, problem := at, err.Error()
	if parts := goField.FindStringSubmatch(problem); parts != nil {
		field, problem = at+"."+adapterKey(parts[1]), parts[2]
	}
	v.fail(strings.TrimSuffix(field, ".sarama"), "%s", problem) // a field that the file does not have
}

var schemaName = regexp.MustCompile(`^([a-z_][a-z0-9_]{0,39})?$`)

func (v *validator) required(field, value, example string) string {
	if value == "" {
		v.fail(field, "is empty: for example %s", example)
	}
	return v.optional(field, value)
}

func (v *validator) optional(field, value string) string {
	value, err := expand(value)
	if err != nil {
		v.fail(field, "%v", err)
	}
	return value
}

func (v *validator) duration(field string, d duration) {
	if d == "" {
		return
	}
	if value, err := time.ParseDuration(string(d)); err != nil || value <= 0 {
		v.fail(field, "%q is not a positive duration: write for example 15s, 2m or 72h", string(d))
	}
}

// oneOf accepts the listed values; an empty one means the first.
func (v *validator) oneOf(field string, value *string, allowed ...string) {
	if *value == "" {
		*value = allowed[0]
	}
	for _, a := range allowed {
		if *value == a {
			return
		}
	}
	v.fail(field, "%q is not known: use %s", *value, strings.Join(allowed, ", "))
}
