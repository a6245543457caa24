package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/certs"
)

// Config is for both sides; each ignores the other's fields.
type Config struct {
	// Brokers are the addresses to start from, host:port. Required.
	Brokers []string
	// ClientID names this program in the broker's logs and quotas. Default "outboxkit".
	ClientID string
	// TLS turns on TLS. Default nil: plain text.
	TLS *tls.Config
	// TLSFiles turns on TLS with certificates from files, which are read at each
	// connection: renewed ones are used without a restart. Set either this or TLS.
	// Default nil: none; the zero Files trusts the system's authorities.
	TLSFiles *certs.Files
	// Mechanism is the SASL mechanism. Default "": Plain if Username is set,
	// OAuthBearer if Token is, else no SASL. Others are set through Sarama.
	Mechanism Mechanism
	// Username and Password are for Plain, ScramSHA256 and ScramSHA512. Use them over
	// TLS only. Default "".
	Username, Password string
	// Token returns the bearer token for OAuthBearer. It is asked for one at each
	// connection and each renewal that the broker demands, from several goroutines,
	// and should remember it while it is good. Its context ends with DialTimeout
	// (5 s unless changed through Sarama). Default nil.
	Token func(context.Context) (string, error)
	// Sarama changes the client's own configuration after the fields above and
	// the package's defaults have been applied. Producer.Compression (default
	// snappy), CompressionLevel, Partitioner (default murmur2, as Java),
	// MaxMessageBytes (cap of a batch, default 1 MiB) and Timeout count; the other
	// Producer fields do not, because the client's producers are not used.
	// Default nil.
	Sarama func(*sarama.Config)
	// Logger receives what an operator should know. Default slog.Default().
	Logger *slog.Logger

	// PublishTimeout is how long one call of Publish tries, through leader
	// elections and reconnects, before it reports the rest as unavailable.
	// Default 10 s. Where it is more than the client's own timeouts, those are as long.
	PublishTimeout time.Duration
	// MaxRequestBytes bounds what is sent in one request, counted before compression:
	// for brokers that close the connection at a larger one. A message that does not
	// fit is rejected without being sent. At least 65,536. Default 0: batches of
	// several partitions go together up to 8 MiB, and a single batch may be larger.
	MaxRequestBytes int

	// Group is the consumer group. Required for a subscriber.
	Group string
	// DrainTimeout is how long deliveries may be settled after their partition
	// has been taken away or Subscribe's context has ended. It must leave 5 s of
	// the group's rebalance timeout (60 s unless changed through Sarama); keep it
	// below the time that your platform gives a process to end. Default: 25 s, of a
	// pod's 30, or the rebalance timeout less 5 s if that is shorter.
	DrainTimeout time.Duration
	// MaxUnsettled is how many messages of one partition may be delivered beyond
	// the first one that is not settled; it bounds what comes again after a
	// crash. Default 10,000.
	MaxUnsettled int
}

const (
	defaultPublishTimeout = 10 * time.Second
	defaultMaxUnsettled   = 10_000
	defaultDrainTimeout   = 25 * time.Second // a pod has 30 s to end, unless configured
	drainReserve          = 5 * time.Second  // of the rebalance timeout, to commit and rejoin
)

func (c Config) withDefaults() Config {
	c.ClientID = cmp.Or(c.ClientID, "outboxkit")
	c.PublishTimeout = cmp.Or(c.PublishTimeout, defaultPublishTimeout)
	c.MaxUnsettled = cmp.Or(c.MaxUnsettled, defaultMaxUnsettled)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate names the first field that is wrong. The constructors do not fail:
// they keep the error for the first use, so that they fit into a literal; call
// Validate to see it at start.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case len(c.Brokers) == 0:
		return errors.New(`kafka: Config.Brokers is empty (list at least one broker, for example "localhost:9092")`)
	case c.PublishTimeout < 0:
		return fmt.Errorf("kafka: Config.PublishTimeout %s is negative (leave it 0 for %s)", c.PublishTimeout, defaultPublishTimeout)
	case c.MaxRequestBytes != 0 && (c.MaxRequestBytes < minRequestBytes || c.MaxRequestBytes > int(sarama.MaxRequestSize)):
		return fmt.Errorf("kafka: Config.MaxRequestBytes %d is not between %d and %d (leave it 0 for 8 MiB)", c.MaxRequestBytes, minRequestBytes, sarama.MaxRequestSize)
	case c.MaxUnsettled < 0:
		return fmt.Errorf("kafka: Config.MaxUnsettled %d is negative (leave it 0 for %d)", c.MaxUnsettled, defaultMaxUnsettled)
	case c.TLS != nil && c.TLSFiles != nil:
		return errors.New("kafka: Config.TLSFiles is set together with Config.TLS (set one of them)")
	}
	if err := c.validateSASL(); err != nil {
		return err
	}
	for i, b := range c.Brokers {
		if b == "" {
			return fmt.Errorf("kafka: Config.Brokers[%d] is empty (write host:port)", i)
		}
	}
	sc := c.client()
	if err := sc.Validate(); err != nil {
		return fmt.Errorf("kafka: Config.Sarama: %w", err)
	}
	if c.TLSFiles != nil && sc.Net.TLS.Enable {
		return errors.New("kafka: Config.TLSFiles is set, and Config.Sarama turns on TLS too (leave one of them out)")
	}
	if limit := sc.Consumer.Group.Rebalance.Timeout - drainReserve; c.DrainTimeout < 0 || c.DrainTimeout > limit && c.DrainTimeout > 0 {
		return fmt.Errorf("kafka: Config.DrainTimeout %s is not between 0 and %s (the rebalance timeout less %s; leave it 0 for the default)", c.DrainTimeout, limit, drainReserve)
	}
	return nil
}

// validateSubscriber is Validate and what only a subscriber needs.
func (c Config) validateSubscriber(topics []string) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Group == "" {
		return errors.New("kafka: Config.Group is empty (name the consumer group, one per consuming service)")
	}
	if len(topics) == 0 {
		return errors.New("kafka: NewSubscriber was given no topics (name at least one)")
	}
	for _, t := range topics {
		if err := validTopic(t); err != nil {
			return fmt.Errorf("kafka: NewSubscriber: topic %q: %w", t, err)
		}
	}
	return nil
}

// client returns the client configuration for both sides.
func (c Config) client() *sarama.Config {
	sc := sarama.NewConfig()
	sc.ClientID = c.ClientID
	sc.Version = sarama.V2_8_0_0
	sc.Net.DialTimeout = 5 * time.Second
	if c.TLS != nil {
		sc.Net.TLS.Enable = true
		sc.Net.TLS.Config = c.TLS
	}
	c.sasl(sc)
	// Or they would end a wait that the user wants.
	sc.Producer.Timeout = max(sc.Producer.Timeout, c.PublishTimeout)
	sc.Net.ReadTimeout = max(sc.Net.ReadTimeout, c.PublishTimeout)
	sc.Producer.Compression = sarama.CompressionSnappy
	sc.Producer.Partitioner = sarama.NewMurmur2Partitioner

	sc.Consumer.Offsets.Initial = sarama.OffsetOldest
	sc.Consumer.IsolationLevel = sarama.ReadCommitted
	// The subscriber tries for ever by itself; the client's long pauses would
	// only delay it after a broker's restart.
	sc.Consumer.Retry.Backoff = 500 * time.Millisecond
	sc.Consumer.Group.Rebalance.Retry.Backoff = 500 * time.Millisecond
	sc.Consumer.MaxWaitTime = 250 * time.Millisecond // a partition is let go when its last fetch returns
	sc.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}

	if c.Sarama != nil {
		c.Sarama(sc)
	}

	// What the promises rest on, whatever the user's function did.
	sc.Metadata.Full = false                      // a start needs no broker and reads no foreign topics
	sc.Metadata.AllowAutoTopicCreation = false    // a typo must not create a topic
	sc.Consumer.Return.Errors = true              // drained by the subscriber
	sc.Consumer.Offsets.AutoCommit.Enable = true  // the flush at a session's end depends on it
	sc.Consumer.Group.ResetInvalidOffsets = false // never skip events silently
	return sc
}

// producer returns the publisher's client configuration.
func (c Config) producer() *sarama.Config {
	sc := c.client()
	// The publisher refreshes by itself, with its own retries and budget.
	sc.Metadata.Retry.Max = 0
	sc.Metadata.RefreshFrequency = 0
	return sc
}

// drainTimeout returns DrainTimeout or its default.
func (c Config) drainTimeout(sc *sarama.Config) time.Duration {
	if c.DrainTimeout > 0 {
		return c.DrainTimeout
	}
	rebalance := sc.Consumer.Group.Rebalance.Timeout
	return min(max(rebalance-drainReserve, rebalance/2), defaultDrainTimeout)
}
