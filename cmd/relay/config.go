package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outboxkit/outboxkit/schema/registry"
)

// config is relay.yaml. docs/relay.yaml explains every key.
type config struct {
	Database     databaseConfig   `yaml:"database"`
	Databases    []databaseEntry  `yaml:"databases"`
	Instance     string           `yaml:"instance"`
	Lease        duration         `yaml:"lease"`
	Retention    duration         `yaml:"retention"`
	DrainTimeout duration         `yaml:"drain_timeout"`
	Log          logConfig        `yaml:"log"`
	Pipelines    []pipelineConfig `yaml:"pipelines"`
}

// duration stays text until it is checked: the decoder's own error for a bad one
// has no line.
type duration string

func (d duration) value() time.Duration {
	v, _ := time.ParseDuration(string(d)) // checked by loadConfig; "" is 0, the default
	return v
}

type databaseConfig struct {
	URL    string `yaml:"url"`
	Schema string `yaml:"schema"`
}

type logConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

type pipelineConfig struct {
	Name          string          `yaml:"name"`
	Kafka         *kafkaConfig    `yaml:"kafka"`
	RabbitMQ      *rabbitmqConfig `yaml:"rabbitmq"`
	Wire          wireConfig      `yaml:"wire"`
	routingConfig `yaml:",inline"`
}

type kafkaConfig struct {
	Brokers  []string `yaml:"brokers"`
	TLS      bool     `yaml:"tls"`
	Username string   `yaml:"username"`
	Password string   `yaml:"password"`
}

type rabbitmqConfig struct {
	URL        string `yaml:"url"`
	Exchange   string `yaml:"exchange"`
	RoutingKey string `yaml:"routing_key"`
	Queues     int    `yaml:"queues"`
	Declare    bool   `yaml:"declare"`
}

type wireConfig struct {
	Format   string         `yaml:"format"`
	Registry registryConfig `yaml:"registry"`
}

type registryConfig struct {
	URL      string `yaml:"url"`
	Register bool   `yaml:"register"`
	Username string `yaml:"username"`
	Password string `yaml:"password"`
}

// Wire formats.
const (
	wireBare         = "bare"
	wireConfluent    = "confluent"
	wireSingleObject = "single-object"
)

// configError points at the place in the file. It never quotes the file: a line
// may hold a password.
type configError struct {
	file    string
	line    int // 0 = the key is missing altogether
	field   string
	problem string
}

func (e *configError) Error() string {
	at := e.file
	if e.line > 0 {
		at = fmt.Sprintf("%s:%d", e.file, e.line)
	}
	if e.field == "" {
		return fmt.Sprintf("%s: %s", at, e.problem)
	}
	return fmt.Sprintf("%s: %s: %s", at, e.field, e.problem)
}

// loadConfig reads, expands ${VARIABLES} and checks; all problems are reported
// at once, each with its line.
func loadConfig(path string) (config, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return config{}, fmt.Errorf("config: %w", err)
	}
	var c config
	v := validator{file: path}
	if err := yaml.Unmarshal(data, &v.root); err != nil {
		return config{}, errors.Join(v.decodeErrors(err)...)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) { // an empty file lacks everything
		return config{}, errors.Join(v.decodeErrors(err)...)
	}
	v.check(&c)
	return c, errors.Join(v.problems...)
}

var (
	yamlLine     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type \S+$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `.*`)? into (\\S+)$")
)

// decodeErrors names line and field; the library's messages have the line only,
// and quote values.
func (v *validator) decodeErrors(err error) []error {
	messages := []string{err.Error()}
	var types *yaml.TypeError
	if errors.As(err, &types) {
		messages = types.Errors
	}
	var list []error
	for _, m := range messages {
		e := &configError{file: v.file, problem: m}
		if parts := yamlLine.FindStringSubmatch(m); parts != nil {
			e.line, _ = strconv.Atoi(parts[1])
			e.problem = parts[2]
		}
		if parts := unknownField.FindStringSubmatch(e.problem); parts != nil {
			e.problem = fmt.Sprintf("unknown field %q: docs/relay.yaml has all that are known", parts[1])
		} else if parts := wrongType.FindStringSubmatch(e.problem); parts != nil {
			e.field = fieldAt(v.document(), e.line, "")
			e.problem = fmt.Sprintf("is a %s, must be a %s", yamlKind(parts[1]), goKind(parts[2]))
		}
		list = append(list, e)
	}
	return list
}

func yamlKind(tag string) string {
	return map[string]string{"str": "text", "seq": "list", "map": "group of keys", "int": "number", "float": "number", "bool": "true or false"}[tag]
}

func goKind(typ string) string {
	switch {
	case strings.HasPrefix(typ, "[]"):
		return "list"
	case strings.HasPrefix(typ, "main."), strings.HasPrefix(typ, "map["):
		return "group of keys"
	case typ == "int":
		return "whole number"
	case typ == "bool":
		return "true or false"
	default:
		return "text"
	}
}

// fieldAt returns the innermost field whose value begins on a line, for example
// "pipelines[1].rabbitmq.queues".
func fieldAt(n *yaml.Node, line int, path string) string {
	if n == nil {
		return ""
	}
	found := ""
	for i, child := range n.Content {
		at := path
		switch n.Kind {
		case yaml.MappingNode:
			if i%2 == 0 {
				continue
			}
			at = strings.TrimPrefix(path+"."+n.Content[i-1].Value, ".")
		case yaml.SequenceNode:
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		if child.Line == line {
			found = at
		}
		if inner := fieldAt(child, line, at); inner != "" {
			found = inner
		}
	}
	return found
}

type validator struct {
	file     string
	root     yaml.Node
	problems []error
}

func (v *validator) fail(field, format string, args ...any) {
	v.problems = append(v.problems, &configError{v.file, v.line(field), field, fmt.Sprintf(format, args...)})
}

// document is the file's top-level node, nil if it is empty.
func (v *validator) document() *yaml.Node {
	if len(v.root.Content) == 0 {
		return nil
	}
	return v.root.Content[0]
}

var step = regexp.MustCompile(`\w+`)

// line finds a field such as "pipelines[1].kafka.brokers"; where it is missing,
// the line of the nearest parent that is there.
func (v *validator) line(field string) int {
	n, line := v.document(), 0
	for _, name := range step.FindAllString(field, -1) {
		var next *yaml.Node
		switch {
		case n == nil:
		case n.Kind == yaml.SequenceNode:
			if i, err := strconv.Atoi(name); err == nil && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		case n.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == name {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
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
		p.Kafka.Password = v.optional(at+".kafka.password", p.Kafka.Password)
		v.adapter(at+".kafka", p.Kafka.config(nil).Validate())
	case p.RabbitMQ != nil:
		problems := len(v.problems)
		p.RabbitMQ.URL = v.required(at+".rabbitmq.url", p.RabbitMQ.URL, "amqp://user:password@host:5672/")
		if len(v.problems) == problems {
			v.adapter(at+".rabbitmq", p.RabbitMQ.config(nil).Validate())
		}
	}
	v.checkWire(at, p)
}

func (v *validator) checkWire(at string, p *pipelineConfig) {
	v.oneOf(at+".wire.format", &p.Wire.Format, wireBare, wireConfluent, wireSingleObject)
	if p.Wire.Format == wireConfluent {
		p.Wire.Registry.URL = v.required(at+".wire.registry.url", p.Wire.Registry.URL, "https://registry:8081")
		p.Wire.Registry.Password = v.optional(at+".wire.registry.password", p.Wire.Registry.Password)
		if _, err := registry.New(p.Wire.Registry.config()); err != nil && p.Wire.Registry.URL != "" {
			v.adapter(at+".wire.registry", err)
		}
	} else if p.Wire.Registry.URL != "" {
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
		field, problem = at+"."+strings.ToLower(parts[1]), parts[2]
	}
	v.fail(field, "%s", problem)
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

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME} by the environment's value, so that passwords need not
// stand in the file. A "$" without braces stays: passwords contain them.
func expand(s string) (string, error) {
	var missing []string
	s = variable.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		value, ok := os.LookupEnv(name)
		if !ok {
			missing = append(missing, name)
		}
		return value
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("environment variable %s is not set", strings.Join(missing, ", "))
	}
	return s, nil
}

func (c logConfig) level() (slog.Level, error) {
	var l slog.Level
	if c.Level == "" {
		return slog.LevelInfo, nil
	}
	err := l.UnmarshalText([]byte(c.Level))
	return l, err
}

func (c logConfig) logger() *slog.Logger {
	level, _ := c.level() // checked by loadConfig
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
