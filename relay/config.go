package relay

import (
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// Config says what to publish and where to. The zero value of every field but
// Pipelines is a sensible default.
type Config struct {
	// Schema is the database schema of the outbox. Default: "outbox".
	Schema string
	// Pipelines are the ways out; each has its own leases and positions and is
	// not affected by the others' failures. At least one.
	Pipelines []Pipeline
	// Instance names this process in the database and in logs; a random suffix
	// makes it unique. Default: the host name.
	Instance string
	// Lease is how long this instance may be silent before another takes over.
	// Default: 15 s; at least 1 s.
	Lease time.Duration
	// DrainTimeout bounds how long Run lets publications in flight resolve after
	// its context has ended; bookkeeping may add up to 10 s. Default: 20 s.
	DrainTimeout time.Duration
	// Retention is how long published events are kept at least. Events that a
	// pipeline has not published are kept however old they are. Default: 72 h.
	Retention time.Duration
	// Logger receives what operators should know. Default: slog.Default().
	Logger *slog.Logger
}

// Pipeline is one way out of the log: unless it is filtered, every event of the log
// goes through every pipeline.
type Pipeline struct {
	// Name identifies the pipeline's positions in the database; keep it when the
	// broker's address changes. Required, unique, at most 100 bytes.
	Name string
	// To is where the events go. The caller closes it, after Run has returned.
	// Required.
	To brokers.Publisher
	// Wire frames payloads that have a schema. Default: nil, bare bytes.
	Wire event.WireFormat
	// Validate says whether a payload is what its schema promises; s is zero where the
	// row names none. An event that does not pass is parked as dead, with the error for
	// a reason. It is for logs that are written by plain INSERTs: outbox.Write lets
	// nothing else in. Tombstones are not asked about. It must return the same for the
	// same event and may be called concurrently. Default: nil, everything passes.
	Validate func(m *brokers.Message, s event.Schema) error
	// Filter chooses the events that are published; the position passes over the
	// others for good. It is stored when the pipeline is registered, and another one
	// is refused with a [FilterError]; see [ChangeFilter]. Default: every event.
	Filter Filter
	// Topic maps an event's topic to the one at the broker. The order of a key holds
	// across topics that are mapped to one. It must always return the same for the
	// same topic and may be called concurrently; "" leaves a topic as it is. It is not
	// stored: while relays with different mappings share a pipeline, as in a rolling
	// deployment, an event goes where the relay that publishes it sends it.
	// Default: nil, topics as they are.
	Topic func(topic string) string
	// Start says where the pipeline begins when its name is first registered in the
	// database; later it goes on where it was. Default: at the oldest event that is
	// still retained.
	Start Start
	// BlockKey stores later events behind a parked one of their topic and key,
	// until that is published or discarded; new(false) lets them pass. Default
	// (nil): true.
	BlockKey *bool
}

// shardCount is fixed by the migration (the event table's shard column).
const shardCount = 64

// Defaults of [Config], for what documents them.
const (
	DefaultLease        = 15 * time.Second
	DefaultDrainTimeout = 20 * time.Second
	DefaultRetention    = 72 * time.Hour
)

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = "outbox"
	}
	if c.Instance == "" {
		c.Instance, _ = os.Hostname() // "" is fine: the suffix makes it unique
	}
	setDefault(&c.Lease, DefaultLease)
	setDefault(&c.DrainTimeout, DefaultDrainTimeout)
	setDefault(&c.Retention, DefaultRetention)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// schemaName is what package migrate accepts.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

func (c Config) checkSchema() error {
	if !schemaName.MatchString(c.Schema) {
		return &event.FieldError{Field: "Config.Schema", Value: c.Schema, Problem: "is not a schema name",
			Hint: "lower-case letters, digits and underscores, at most 40, not starting with a digit"}
	}
	return nil
}

func (c Config) validate() error {
	if err := c.checkSchema(); err != nil {
		return err
	}
	if c.Lease < time.Second {
		return &event.FieldError{Field: "Config.Lease", Value: c.Lease.String(), Problem: "is too short", Hint: "at least 1s; 0 means 15s"}
	}
	if c.DrainTimeout < 0 {
		return &event.FieldError{Field: "Config.DrainTimeout", Value: c.DrainTimeout.String(), Problem: "is negative", Hint: "0 means 20s"}
	}
	if c.Retention < 0 {
		return &event.FieldError{Field: "Config.Retention", Value: c.Retention.String(), Problem: "is negative", Hint: "0 means 72h"}
	}
	if len(c.Pipelines) == 0 {
		return &event.FieldError{Field: "Config.Pipelines", Problem: "is empty", Hint: "a relay needs at least one way out"}
	}
	seen := map[string]bool{}
	for i, p := range c.Pipelines {
		field := fmt.Sprintf("Config.Pipelines[%d].", i)
		switch {
		case p.Name == "" || len(p.Name) > 100:
			return &event.FieldError{Field: field + "Name", Value: p.Name, Problem: "must have 1 to 100 bytes"}
		case seen[p.Name]:
			return &event.FieldError{Field: field + "Name", Value: p.Name, Problem: "is used twice", Hint: "positions are kept by this name"}
		case p.To == nil:
			return &event.FieldError{Field: field + "To", Problem: "is nil", Hint: "set a publisher, for example kafka.NewPublisher"}
		}
		if err := p.Start.validate(field, p.Name); err != nil {
			return err
		}
		if err := p.Filter.validate(field); err != nil {
			return err
		}
		seen[p.Name] = true
	}
	return nil
}

// tuning holds constants that tests change.
type tuning struct {
	pageRows   int           // rows in a page
	pageBytes  int64         // a page ends with the row that reaches this
	pages      int           // pages that are published at once
	split      int           // a topic with so many events in a page is published in several shares
	filterIDs  int64         // log ids that a filtered page looks through at most
	turnPages  int           // pages of a group before the next group has its turn
	flushEvery time.Duration // between two flushes
	pruneAfter int           // appended position rows between two prunings
	pollMin    time.Duration // between probes while few events flow
	pollMany   time.Duration // and when many do
	pollMax    time.Duration // and when there are none
	standby    time.Duration // between looks at the leases of another instance
	unable     time.Duration // that an engine may fail before others get its share; 0 = from Lease
	stuck      time.Duration // that a pipeline may stand still before Health says so
	retainTick time.Duration // between looks at the slots; 0 = from Retention
	retryMax   time.Duration // longest pause between attempts, broker away
	badMax     time.Duration // the same for bad destinations and events
	opTimeout  time.Duration // of one database statement
	now        func() time.Time
	park       parkTuning
}

func defaultTuning() tuning {
	return tuning{
		pageRows: 9000, pageBytes: 6 << 20, pages: 2, split: 1000, filterIDs: 50_000, turnPages: 8,
		flushEvery: 250 * time.Millisecond, pruneAfter: 500,
		pollMin: 2 * time.Millisecond, pollMany: 8 * time.Millisecond, pollMax: 90 * time.Millisecond,
		standby: 250 * time.Millisecond, retryMax: 5 * time.Second, badMax: 30 * time.Second,
		opTimeout: 15 * time.Second, stuck: time.Minute, now: time.Now, park: defaultParkTuning(),
	}
}
