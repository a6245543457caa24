package inbox

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

// Unknown says what happens to a message whose type has no handler.
type Unknown int

const (
	// UnknownIgnore acknowledges it without effect and logs each such type once:
	// topics carry types that are none of this consumer's business, and a
	// producer may add one at any time.
	UnknownIgnore Unknown = iota
	// UnknownFail ends Run with an error and gives the message back.
	UnknownFail
	// UnknownDeadLetter makes it a dead letter. Mind Config.BlockKey.
	UnknownDeadLetter
)

// Route is a broker destination for copies of dead letters.
type Route struct {
	Publisher brokers.Publisher // not closed by the inbox
	Topic     string
}

// Config configures an [Inbox].
type Config struct {
	// Consumer names whose effects these are: each consumer handles each event
	// once. Instances that share the work share the name; a new name handles
	// everything anew. Required, at most 200 bytes.
	Consumer string
	// From delivers the messages. Run closes it. Required.
	From brokers.Subscriber
	// Schema is the database schema that migrate.Inbox made. Default "inbox".
	Schema string
	// Wire takes the frame off payloads. Default (nil): payloads are bare bytes,
	// encoded with the schema of the type's codec.
	Wire event.WireFormat

	// Concurrency is the number of handlers that may run at once. More than the
	// pool has connections makes them wait for one. Redriven dead letters are
	// handled beside these, at most four at once. Default 16.
	Concurrency int
	// MaxInFlight is the number of messages taken from the broker and not yet
	// settled. Default 1,024; with [OnBatch] twice Concurrency × BatchSize, if that
	// is more.
	MaxInFlight int
	// MaxInFlightBytes bounds the same in bytes of payload, key and headers; one
	// message alone may be larger. Default 64 MiB.
	MaxInFlightBytes int64

	// BatchSize is the most events that a handler of [OnBatch] gets at once, and
	// the most messages that are looked up at once where duplicates are many.
	// Default 100, at most 1,000.
	BatchSize int

	// WindowDays is how long handled events are remembered, in days; set it to
	// the broker's retention or more (Run compares them if From is a
	// brokers.Retainer, and warns). An event whose UUIDv7 is older, or more than an
	// hour ahead, becomes a dead letter, because nobody can tell whether it was
	// handled; but not if it is from more than 12 hours before the consumer's first
	// start, when it cannot have been. Default 7, at most 31.
	WindowDays int
	// TrustedSources are the sources whose UUIDv7 ids tell when the event came
	// about; see dedup.Config. Default (nil): all.
	TrustedSources []string

	// Attempts is how often a message's handler runs before the message becomes a
	// dead letter. Default 5.
	Attempts int
	// RetryBase is the pause before the second attempt; it doubles with each
	// attempt, ±50%. Default 200 ms.
	RetryBase time.Duration
	// RetryMax bounds the pause. Default 10 s.
	RetryMax time.Duration
	// HandlerTimeout is when a handler's context ends. A process that freezes in
	// its transaction delays another that is given the same message by this and
	// 5 s more: then the database ends the transaction. Default 30 s.
	HandlerTimeout time.Duration

	// Middleware goes around every attempt of every handler, the first outermost;
	// what [On] was given goes inside. Panics are caught whatever is set. Default:
	// none.
	Middleware []Middleware
	// Classify may mark a handler's error, for errors that are not the handler's
	// own: it returns inbox.Permanent(err), inbox.Unavailable(err), or err as it is.
	// A broken constraint, for example, can be permanent. Panics and timeouts are
	// asked about as well. Default (nil): errors are taken as they come.
	Classify func(err error) error
	// Breaker pauses a type whose handler fails for one message after the other,
	// see [Circuit]; with new(false) they all become dead letters. It needs to see
	// three messages fail before the first has used up its attempts, or to be told;
	// see [Unavailable]. Default (nil): true.
	Breaker *bool

	// Unknown says what happens to types without handler. Default UnknownIgnore.
	Unknown Unknown
	// BlockKey stores later events behind a dead one of their topic and key, until
	// it has been redriven or discarded; new(false) lets them pass. Default (nil):
	// true.
	BlockKey *bool
	// DeadLetterTo also publishes each dead letter, confirmed before the message
	// is acknowledged; the row stays, as "moved". A crash may repeat a copy, under
	// the same id. Default: nowhere.
	DeadLetterTo Route

	// Logger receives retries and dead letters (Warn), outages (Warn, Info).
	// Default slog.Default().
	Logger *slog.Logger
}

// defaultInFlight is the default of MaxInFlight. Batches that are handled and
// those that wait behind them should be full.
func (c Config) defaultInFlight(batches bool) int {
	if batches {
		return max(1024, 2*c.Concurrency*c.BatchSize)
	}
	return 1024
}

// maxBatchSize bounds what one transaction locks, and what another may wait for.
const maxBatchSize = 1000

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, "inbox")
	c.Concurrency = cmp.Or(c.Concurrency, 16)
	c.MaxInFlightBytes = cmp.Or(c.MaxInFlightBytes, 64<<20)
	c.BatchSize = cmp.Or(c.BatchSize, 100)
	c.WindowDays = cmp.Or(c.WindowDays, 7)
	c.Attempts = cmp.Or(c.Attempts, 5)
	c.RetryBase = cmp.Or(c.RetryBase, 200*time.Millisecond)
	c.RetryMax = max(cmp.Or(c.RetryMax, 10*time.Second), c.RetryBase)
	c.HandlerTimeout = cmp.Or(c.HandlerTimeout, 30*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.BlockKey == nil {
		c.BlockKey = new(true)
	}
	if c.Breaker == nil {
		c.Breaker = new(true)
	}
	return c
}

func (c Config) validate() error {
	bad := func(field, value, problem, hint string) error {
		return &event.FieldError{Field: "inbox.Config." + field, Value: value, Problem: problem, Hint: hint}
	}
	positive := []struct {
		field string
		value int64
	}{
		{"Concurrency", int64(c.Concurrency)},
		{"MaxInFlight", int64(c.MaxInFlight)},
		{"MaxInFlightBytes", c.MaxInFlightBytes},
		{"BatchSize", int64(c.BatchSize)},
		{"Attempts", int64(c.Attempts)},
		{"RetryBase", int64(c.RetryBase)},
		{"RetryMax", int64(c.RetryMax)},
		{"HandlerTimeout", int64(c.HandlerTimeout)},
	}
	for _, p := range positive {
		if p.value < 0 {
			return bad(p.field, fmt.Sprint(p.value), "is negative", "leave it 0 for the default")
		}
	}
	switch {
	case c.Consumer == "":
		return bad("Consumer", "", "is empty", "name what handles the events, for example inventory")
	case c.From == nil:
		return bad("From", "", "is nil", "set it to a subscriber, for example kafka.NewSubscriber(…)")
	case c.BatchSize > maxBatchSize:
		return bad("BatchSize", fmt.Sprint(c.BatchSize), "is too much for one transaction", "use at most 1000")
	case c.Unknown < UnknownIgnore || c.Unknown > UnknownDeadLetter:
		return bad("Unknown", fmt.Sprint(int(c.Unknown)), "is no policy", "use UnknownIgnore, UnknownFail or UnknownDeadLetter")
	case slices.ContainsFunc(c.Middleware, func(m Middleware) bool { return m == nil }):
		return bad("Middleware", "", "contains nil", "leave it out")
	case (c.DeadLetterTo.Publisher == nil) != (c.DeadLetterTo.Topic == ""):
		return bad("DeadLetterTo", c.DeadLetterTo.Topic, "is half set", "set both Publisher and Topic, or neither")
	}
	return nil
}

func (c Config) breakerLimits() breakerLimits {
	return breakerLimits{never: !*c.Breaker, attempts: c.Attempts, concurrency: c.Concurrency, base: c.RetryBase, max: c.RetryMax}
}
