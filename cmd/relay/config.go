package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// config is relay.yaml. docs/relay.yaml explains every key.
type config struct {
	Database     databaseConfig   `yaml:"database"`
	Databases    []databaseEntry  `yaml:"databases"`
	Inboxes      []inboxEntry     `yaml:"inboxes"`
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
	Validate      bool            `yaml:"validate"`
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
	Token    string `yaml:"token"`
	Subject  string `yaml:"subject"`
}

// Wire formats.
const (
	wireBare         = "bare"
	wireConfluent    = "confluent"
	wireSingleObject = "single-object"
)

// loadConfig reads, expands ${VARIABLES} and checks; all problems are reported
// at once, each with its line.
func loadConfig(path string) (config, error) {
	c, v, err := readConfig(path)
	if err != nil {
		return config{}, err
	}
	v.check(&c)
	return c, v.err()
}

// readConfig reads without checking more than the form.
func readConfig(path string) (config, *validator, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return config{}, nil, fmt.Errorf("config: %w", err)
	}
	var c config
	v := &validator{file: path}
	if err := yaml.Unmarshal(data, &v.root); err != nil {
		return config{}, nil, errors.Join(v.decodeErrors(err)...)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) { // an empty file lacks everything
		return config{}, nil, errors.Join(v.decodeErrors(err)...)
	}
	return c, v, nil
}

func (v *validator) err() error { return errors.Join(v.problems...) }

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
