package rabbitmq

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/certs"
)

const (
	defaultMaxMessageBytes = 16 << 20
	defaultWindow          = 500
	defaultPrefetch        = 200
	defaultDialTimeout     = 5 * time.Second
	defaultConfirmTimeout  = 10 * time.Second
	defaultDrainTimeout    = 25 * time.Second // a pod has 30 s to end, unless configured
)

// PublisherConfig configures a [Publisher]. The zero value of every field but
// URL is usable: a message then goes through the default exchange to the queue
// that is named like its topic.
type PublisherConfig struct {
	// URL of the broker, amqp:// or amqps://, with user, password and virtual
	// host. Required.
	URL string
	// TLS is used for amqps:// URLs. Default: the system's roots, the URL's host
	// as server name.
	TLS *tls.Config
	// TLSFiles are certificates for an amqps:// URL from files, which are read at each
	// connection: renewed ones are used without a restart. With a certificate of its
	// own and no user in the URL the client logs in with that (EXTERNAL). Set either
	// this or TLS. Default nil: none.
	TLSFiles *certs.Files

	// Exchange receives every message, with its topic as routing key. It must
	// exist. Default: "", the default exchange, where the routing key is the name
	// of a queue.
	Exchange string
	// Queues spreads each topic over this many routing keys, <topic>.0 to
	// <topic>.<Queues-1>, by a stable hash of the key (see QueueName). Changing it
	// breaks the order of keys that move. Default: 0, the topic itself.
	Queues int
	// Route replaces Exchange and Queues: it returns where m goes. Messages of one
	// topic and key must go to one place. It may be called from several
	// goroutines, and again for the same message. Default: nil.
	Route func(m *brokers.Message) (exchange, routingKey string)
	// Declare makes sure, before the first message of a session goes to a routing
	// key, that a queue of that name exists, creating a durable quorum queue with a
	// single active consumer if it does not and binding it to the exchange. An
	// existing queue is left as it is. Default: false.
	Declare bool

	// MaxMessageBytes is the largest payload that the server takes; larger ones are
	// rejected without being sent. Default: 16 MiB, RabbitMQ 4's own default.
	MaxMessageBytes int
	// Window is the most messages that wait for their confirmation at once, 1 to
	// 10,000. Default: 500; more was slower.
	Window int
	// DialTimeout bounds connecting, handshakes included. Default: 5 s.
	DialTimeout time.Duration
	// ConfirmTimeout is how long a message may wait for its confirmation before it
	// counts as failed. Default: 10 s.
	ConfirmTimeout time.Duration

	// Client may change the AMQP client's own configuration before each
	// connection. Recovery is ignored: the publisher reconnects by itself.
	Client func(*amqp.Config)
	// Logger receives lost connections and the like. Default: slog.Default().
	Logger *slog.Logger
}

func (c PublisherConfig) withDefaults() PublisherConfig {
	setDefault(&c.MaxMessageBytes, defaultMaxMessageBytes)
	setDefault(&c.Window, defaultWindow)
	setDefault(&c.DialTimeout, defaultDialTimeout)
	setDefault(&c.ConfirmTimeout, defaultConfirmTimeout)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate names the first fields that are wrong. NewPublisher calls it.
func (c PublisherConfig) Validate() error {
	c = c.withDefaults()
	const in = "PublisherConfig"
	switch {
	case c.Route != nil && (c.Exchange != "" || c.Queues != 0):
		return fmt.Errorf("rabbitmq: %s.Route replaces Exchange and Queues (leave those empty)", in)
	case len(c.Exchange) > maxShortString:
		return fmt.Errorf("rabbitmq: %s.Exchange has %d bytes (AMQP allows %d)", in, len(c.Exchange), maxShortString)
	case c.Queues < 0:
		return fmt.Errorf("rabbitmq: %s.Queues %d is negative (0 means one queue, named like the topic)", in, c.Queues)
	case c.Window < 1 || c.Window > 10_000:
		return fmt.Errorf("rabbitmq: %s.Window %d is not between 1 and 10000", in, c.Window)
	case c.MaxMessageBytes < 0:
		return fmt.Errorf("rabbitmq: %s.MaxMessageBytes %d is negative", in, c.MaxMessageBytes)
	}
	return errors.Join(
		checkURL(in, c.URL),
		checkTLS(in, c.URL, c.TLS, c.TLSFiles),
		checkDuration(in, "DialTimeout", c.DialTimeout),
		checkDuration(in, "ConfirmTimeout", c.ConfirmTimeout))
}

// SubscriberConfig configures a [Subscriber].
type SubscriberConfig struct {
	// URL of the broker, amqp:// or amqps://, with user, password and virtual
	// host. Required.
	URL string
	// TLS is used for amqps:// URLs. Default: the system's roots, the URL's host
	// as server name.
	TLS *tls.Config
	// TLSFiles are certificates for an amqps:// URL from files, which are read at each
	// connection: renewed ones are used without a restart. With a certificate of its
	// own and no user in the URL the client logs in with that (EXTERNAL). Set either
	// this or TLS. Default nil: none.
	TLSFiles *certs.Files

	// Declare creates a queue that does not exist as a durable quorum queue with a
	// single active consumer. An existing queue is left as it is: it should have
	// x-single-active-consumer if several processes consume it, or their
	// deliveries overtake each other. With several queues it also spreads them
	// evenly over the processes that consume them, which find each other by a queue
	// named <first queue>.members. Default: false, a missing queue is an error, and
	// a queue stays with the consumer that the broker has chosen.
	Declare bool
	// Prefetch is the most unsettled deliveries of each queue, 1 to 65,535.
	// Default: 200.
	Prefetch int
	// DrainTimeout is how long Subscribe waits, when it is told to stop, for
	// deliveries to be settled. Keep it below the time that your platform gives a
	// process to end. Default: 25 s, of a pod's 30.
	DrainTimeout time.Duration
	// DialTimeout bounds connecting, handshakes included. Default: 5 s.
	DialTimeout time.Duration

	// Client may change the AMQP client's own configuration before each
	// connection. Recovery is ignored: the subscriber reconnects by itself.
	Client func(*amqp.Config)
	// Logger receives lost connections and the like. Default: slog.Default().
	Logger *slog.Logger
}

func (c SubscriberConfig) withDefaults() SubscriberConfig {
	setDefault(&c.Prefetch, defaultPrefetch)
	setDefault(&c.DrainTimeout, defaultDrainTimeout)
	setDefault(&c.DialTimeout, defaultDialTimeout)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate names the first fields that are wrong. NewSubscriber calls it.
func (c SubscriberConfig) Validate() error {
	c = c.withDefaults()
	const in = "SubscriberConfig"
	// Without a limit the broker would push the whole queue into memory.
	if c.Prefetch < 1 || c.Prefetch > 65_535 {
		return fmt.Errorf("rabbitmq: %s.Prefetch %d is not between 1 and 65535", in, c.Prefetch)
	}
	return errors.Join(
		checkURL(in, c.URL),
		checkTLS(in, c.URL, c.TLS, c.TLSFiles),
		checkDuration(in, "DrainTimeout", c.DrainTimeout),
		checkDuration(in, "DialTimeout", c.DialTimeout))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func checkDuration(in, field string, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("rabbitmq: %s.%s %v is negative", in, field, d)
	}
	return nil
}

// checkURL never repeats the URL: it may hold a password.
func checkURL(in, s string) error {
	if s == "" {
		return fmt.Errorf("rabbitmq: %s.URL is empty (set it, for example to amqp://user:password@host:5672/)", in)
	}
	_, err := amqp.ParseURI(s)
	if err == nil {
		return nil
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("rabbitmq: %s.URL is not an AMQP URL: %w (for example amqp://user:password@host:5672/)", in, err)
}

// checkTLS refuses files that would not be used.
func checkTLS(in, s string, conf *tls.Config, files *certs.Files) error {
	switch {
	case files == nil:
		return nil
	case conf != nil:
		return fmt.Errorf("rabbitmq: %s.TLSFiles is set together with TLS (set one of them)", in)
	case plainText(s):
		return fmt.Errorf("rabbitmq: %s.TLSFiles is set but the URL is plain text (write amqps:// and the port for TLS, mostly 5671)", in)
	}
	return nil
}

func plainText(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "amqp"
}
