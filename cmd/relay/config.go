package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// config is relay.yaml. docs/relay.yaml explains every key.
type config struct {
	Database     databaseConfig   `yaml:"database"`
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
	Name     string          `yaml:"name"`
	Kafka    *kafkaConfig    `yaml:"kafka"`
	RabbitMQ *rabbitmqConfig `yaml:"rabbitmq"`
	Wire     wireConfig      `yaml:"wire"`
}

type kafkaConfig struct {
	Brokers  []string `yaml:"brokers"`
	TLS      bool     `yaml:"tls"`
	Username string   `yaml:"username"`
	Password string   `yaml:"password"`
}

type rabbitmqConfig struct {
	URL      string `yaml:"url"`
	Exchange string `yaml:"exchange"`
	Queues   int    `yaml:"queues"`
	Declare  bool   `yaml:"declare"`
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
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&c); err != nil {
		return config{}, decodeError(path, err)
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return config{}, decodeError(path, err)
	}
	v := validator{file: path, ast: file}
	v.check(&c)
	return c, errors.Join(v.problems...)
}

func decodeError(path string, err error) error {
	e := &configError{file: path, problem: err.Error()}
	var y yaml.Error
	if errors.As(err, &y) {
		e.problem = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			e.line = t.Position.Line
		}
	}
	return e
}

type validator struct {
	file     string
	ast      *ast.File
	problems []error
}

func (v *validator) fail(field, format string, args ...any) {
	v.problems = append(v.problems, &configError{v.file, v.line(field), field, fmt.Sprintf(format, args...)})
}

// line finds a field such as "pipelines[1].kafka.brokers"; where it is missing,
// the line of the nearest parent that is there.
func (v *validator) line(field string) int {
	for field != "" {
		p, err := yaml.PathString("$." + field)
		if err == nil {
			if node, err := p.FilterFile(v.ast); err == nil && node.GetToken() != nil {
				return node.GetToken().Position.Line
			}
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return 0
}

func (v *validator) check(c *config) {
	c.Database.URL = v.required("database.url", c.Database.URL, "postgres://user:password@host:5432/database")
	v.duration("lease", c.Lease)
	v.duration("retention", c.Retention)
	v.duration("drain_timeout", c.DrainTimeout)
	v.oneOf("log.format", &c.Log.Format, "text", "json")
	if _, err := c.Log.level(); err != nil {
		v.fail("log.level", "%q is not a level: use debug, info, warn or error", c.Log.Level)
	}
	if len(c.Pipelines) == 0 {
		v.fail("pipelines", "is empty: describe at least one, with a name and kafka or rabbitmq")
	}
	names := map[string]bool{}
	for i := range c.Pipelines {
		p, at := &c.Pipelines[i], fmt.Sprintf("pipelines[%d]", i)
		p.Name = v.required(at+".name", p.Name, "kafka")
		if names[p.Name] && p.Name != "" {
			v.fail(at+".name", "%q is used twice: every pipeline has its own position, found by its name", p.Name)
		}
		names[p.Name] = true
		v.checkPipeline(at, p)
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
	case p.RabbitMQ != nil:
		p.RabbitMQ.URL = v.required(at+".rabbitmq.url", p.RabbitMQ.URL, "amqp://user:password@host:5672/")
	}
	v.oneOf(at+".wire.format", &p.Wire.Format, wireBare, wireConfluent, wireSingleObject)
	if p.Wire.Format == wireConfluent {
		p.Wire.Registry.URL = v.required(at+".wire.registry.url", p.Wire.Registry.URL, "https://registry:8081")
		p.Wire.Registry.Password = v.optional(at+".wire.registry.password", p.Wire.Registry.Password)
	} else if p.Wire.Registry.URL != "" {
		v.fail(at+".wire.registry", "is only used with wire.format: %s", wireConfluent)
	}
}

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
