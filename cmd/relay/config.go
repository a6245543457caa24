package main

import (
	"io"
	"log/slog"
	"os"
	"time"
)

// config is relay.yaml. The tags of a key are what docs/configuration.md says of it
// (go generate writes it anew):
//
//	doc      what it is for
//	default  what counts when it is left out; none: it has to be given, or is off
//	values   what may stand there, where that is a choice
//	flag     its flag of relay run
//	secret   "value": never shown; "url": shown without passwords
type config struct {
	Database     databaseConfig   `yaml:"database"`
	Databases    []databaseEntry  `yaml:"databases" doc:"instead of database: several, each served on its own"`
	Inboxes      []inboxEntry     `yaml:"inboxes" doc:"consumers' databases, for relay dlq --inbox NAME, relay explain, relay doctor and the web page; nothing is published from them, relay run does not need them, and a file may have this list alone"`
	Instance     string           `yaml:"instance" default:"host name" flag:"instance" doc:"name in the database and in logs; a random suffix is added"`
	Lease        duration         `yaml:"lease" default:"15s" flag:"lease" doc:"how long this relay may be silent before others take its shards over; at least 1s"`
	Retention    duration         `yaml:"retention" default:"72h" flag:"retention" doc:"how long published events are kept, at least"`
	DrainTimeout duration         `yaml:"drain_timeout" default:"20s" flag:"drain-timeout" doc:"how long a stopping relay waits for what is in flight; bookkeeping may add 10s where the database does not answer"`
	Log          logConfig        `yaml:"log"`
	Admin        adminConfig      `yaml:"admin"`
	Hide         []string         `yaml:"hide" doc:"fields of payloads that relay dlq, relay schema decode --event and the page do not show, nor their bytes: a name, a path such as customer.email (an email anywhere below a customer), or all"`
	Pipelines    []pipelineConfig `yaml:"pipelines" doc:"every event goes through every pipeline that does not filter it out"`
}

// duration stays text until it is checked: the decoder's own error for a bad one
// has no line.
type duration string

func (d duration) value() time.Duration {
	v, _ := time.ParseDuration(string(d)) // checked by loadConfig; "" is 0, the default
	return v
}

type databaseConfig struct {
	URL      string     `yaml:"url" flag:"database-url" secret:"url" doc:"required: postgres://user:password@host:5432/database; pool_max_conns in it allows more connections than two a pipeline and three more"`
	Password string     `yaml:"password" secret:"value" doc:"goes before one in the URL, and is taken as it is: nothing in it has to be percent-encoded"`
	Schema   string     `yaml:"schema" default:"outbox" flag:"database-schema" doc:"database schema with the tables"`
	TLS      *tlsConfig `yaml:"tls"`
}

type logConfig struct {
	Level  string `yaml:"level" default:"info" values:"debug, info, warn, error" flag:"log-level" doc:"the least important messages that are logged"`
	Format string `yaml:"format" default:"text" values:"text, json" flag:"log-format" doc:"format of the log, which goes to standard error"`
}

type pipelineConfig struct {
	Name          string          `yaml:"name" doc:"required: its positions are found by it. Keep it when the broker moves; to take it out for good: relay pipeline drop"`
	Kafka         *kafkaConfig    `yaml:"kafka"`
	RabbitMQ      *rabbitmqConfig `yaml:"rabbitmq"`
	Wire          wireConfig      `yaml:"wire"`
	Validate      bool            `yaml:"validate" default:"false" doc:"park payloads that do not fit their schema, for writers that are not in Go; those without a schema must be JSON, if their content type says so or says nothing"`
	routingConfig `yaml:",inline"`
}

type kafkaConfig struct {
	Brokers   []string     `yaml:"brokers" doc:"required: host:port of some of the cluster's brokers"`
	TLS       *tlsConfig   `yaml:"tls"`
	Mechanism string       `yaml:"mechanism" default:"PLAIN with a username, OAUTHBEARER with a token, else none" values:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER" doc:"SASL mechanism"`
	Username  string       `yaml:"username" doc:"for PLAIN and SCRAM"`
	Password  string       `yaml:"password" secret:"value" doc:"for PLAIN and SCRAM"`
	TokenFile string       `yaml:"token_file" doc:"for OAUTHBEARER: a file with a token, read at each connection"`
	OAuth     *oauthConfig `yaml:"oauth"`

	Compression     string   `yaml:"compression" default:"snappy" values:"snappy, none, gzip, lz4, zstd" doc:"of batches; Azure Event Hubs takes none, or gzip in its Premium and Dedicated tiers"`
	MaxRequestBytes int      `yaml:"max_request_bytes" default:"8 MiB, more for one large batch" doc:"bytes of the largest request, counted before compression; an event that alone is larger is parked. For brokers that close the connection at larger ones, such as Event Hubs: 1000000"`
	PublishTimeout  duration `yaml:"publish_timeout" default:"10s" doc:"how long a publication may take, elections and reconnects included, until what is not confirmed counts as failed and is tried again; Event Hubs: 60s"`
}

type rabbitmqConfig struct {
	URL        string     `yaml:"url" secret:"url" doc:"required: amqp://user:password@host:5672/vhost; amqps for TLS; without a user and with tls.cert_file the login is that certificate (EXTERNAL)"`
	Password   string     `yaml:"password" secret:"value" doc:"goes before one in the URL, of the user named there, and is taken as it is"`
	TLS        *tlsConfig `yaml:"tls"`
	Exchange   string     `yaml:"exchange" default:"the default exchange" doc:"exchange that must exist; with the default exchange the routing key is the queue's name"`
	RoutingKey string     `yaml:"routing_key" default:"{topic}" doc:"may contain {topic}, as mapped, and {type}; not with queues"`
	Management string     `yaml:"management" secret:"url" doc:"https://user:password@host:15671 of the management API, for relay doctor alone, which learns of queues' settings there; its user is that of url unless it has one, and tls applies"`
	Queues     int        `yaml:"queues" default:"0" doc:"n > 0: spread a topic over <topic>.0 to <topic>.<n-1> by key"`
	Declare    bool       `yaml:"declare" default:"false" doc:"create missing queues, named like the routing key, as quorum queues with a single active consumer, and bind them"`
}

type wireConfig struct {
	Format   string         `yaml:"format" default:"bare" values:"bare, confluent, single-object" doc:"how payloads that have a schema are framed"`
	Registry registryConfig `yaml:"registry"`
}

type registryConfig struct {
	URL      string     `yaml:"url" secret:"url" doc:"schema registry; required for confluent"`
	TLS      *tlsConfig `yaml:"tls"`
	Register bool       `yaml:"register" default:"false" doc:"register schemas that it lacks; false: only look them up"`
	Username string     `yaml:"username" doc:"basic authentication"`
	Password string     `yaml:"password" secret:"value" doc:"basic authentication"`
	Token    string     `yaml:"token" secret:"value" doc:"bearer token, instead of username and password"`
	Subject  string     `yaml:"subject" default:"topic" values:"topic, record, topic-record" doc:"how subjects are named; topic is <topic>-value"`
}

// Wire formats.
const (
	wireBare         = "bare"
	wireConfluent    = "confluent"
	wireSingleObject = "single-object"
)

// loadConfig reads the file and the environment, expands ${…} and checks; all
// problems are reported at once, each with its place.
func loadConfig(path string) (config, error) { return settings{path: path}.load() }

func (s settings) load() (config, error) {
	c, v, err := s.read()
	if err != nil {
		return config{}, err
	}
	v.check(&c)
	if err := v.err(); err != nil || s.flags == nil {
		return c, err
	}
	for _, w := range v.warnings { // the daemon says so once, not each command again
		c.Log.logger().Warn("relay: " + w)
	}
	return c, nil
}

// readConfig reads without checking more than the form.
func readConfig(path string) (config, *validator, error) {
	c, v, err := settings{path: path}.read()
	if err == nil {
		err = v.err()
	}
	return c, v, err
}

func (c logConfig) level() (slog.Level, error) {
	var l slog.Level
	if c.Level == "" {
		return slog.LevelInfo, nil
	}
	err := l.UnmarshalText([]byte(c.Level))
	return l, err
}

// logger writes to standard error.
func (c logConfig) logger() *slog.Logger { return c.loggerTo(os.Stderr) }

// loggerTo lets no password past it that a library's error quotes.
func (c logConfig) loggerTo(w io.Writer) *slog.Logger {
	level, _ := c.level() // checked by loadConfig
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: withoutSecrets}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
