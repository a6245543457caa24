package brokertest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

const (
	// MaxBytes is the size that the suite asks for in [Topic.MaxBytes]: a message
	// with a payload of 15,000 bytes must pass, one of 30,000 must not.
	MaxBytes = 20_000
	// DrainTimeout is what Harness.NewSubscriber sets as the subscriber's drain
	// timeout. A longer one is right too, but some subtests wait until it is over.
	DrainTimeout = 2 * time.Second
)

// Topic is a destination that the suite asks for. Names are lower-case letters,
// digits and dashes, never used before.
type Topic struct {
	Name string
	// Group is the one consumer group that reads the topic. Brokers that keep
	// messages only for consumers they know (RabbitMQ) create its queues together
	// with the topic: what is published before the first Subscribe must arrive.
	Group string
	// Units is the number of ordered units (partitions, queues) wanted, at least
	// 1. An adapter that has only one may ignore it.
	Units int
	// MaxBytes is the largest message that the topic must accept, 0 for any
	// limit. It is 0 or the constant [MaxBytes]. Where the limit belongs to the
	// publisher (RabbitMQ), set it in NewPublisher, for all topics.
	MaxBytes int
}

// Harness says how the suite reaches an adapter and its broker. Functions are
// called from several subtests at once; they end the test with t.Fatal when
// they fail, and clean up with t.Cleanup.
//
// A function marked optional may be nil only if Without says why, under the
// field's name; the subtests that need it are then skipped with that reason.
type Harness struct {
	// Broker is what deliveries carry in Origin.Broker. Required.
	Broker string
	// NewPublisher returns a new publisher with connections of its own. The suite
	// closes it. Required.
	NewPublisher func(t *testing.T) brokers.Publisher
	// NewSubscriber returns a new member of topic.Group, reading topic.Name from
	// its beginning, with a drain timeout of [DrainTimeout]. The suite closes it.
	// Required.
	NewSubscriber func(t *testing.T, topic Topic) brokers.Subscriber
	// CreateTopic creates the topic and returns when it can be used. Required.
	CreateTopic func(t *testing.T, topic Topic)
	// UnknownTopic returns the name of a destination that does not exist but could
	// be made with CreateTopic. Default: a name that nobody has used.
	UnknownTopic func(t *testing.T) string
	// Unroutable returns the name of a destination that exists, but from which
	// messages reach nobody (RabbitMQ: an exchange without a binding). Optional.
	Unroutable func(t *testing.T) string
	// Stop ends the server, Start starts it again at the same address with the
	// data it had. While they are used no other subtest runs. Optional, together.
	Stop, Start func(t *testing.T)
	// Ahead returns how many messages the broker has handed to subscribers of the
	// topic that are not settled yet, inside the adapter or in handle. Optional.
	Ahead func(t *testing.T, topic Topic) int
	// Poison changes a message into one that fails for good on a topic made with
	// MaxBytes. Default: gives it a payload of 30,000 bytes, and the suite expects
	// ClassRejected. Set it to try another way to fail; any class is then right.
	Poison func(m *brokers.Message)
	// Timeout is the longest wait for anything the broker should do, a rebalance
	// or a reconnection for example. Default: 60 s.
	Timeout time.Duration
	// Without gives the reason for each optional function that is nil.
	Without map[string]string
}

// Exercise runs the suite: first the subtests that share the server, in
// parallel, then, one by one, those that restart it.
func Exercise(t *testing.T, h Harness) {
	t.Helper()
	h = h.withDefaults()
	h.validate(t)
	t.Run("serving", func(t *testing.T) {
		for _, c := range servingChecks() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.exercise(t, h)
			})
		}
	})
	t.Run("restarting", func(t *testing.T) {
		for _, c := range restartChecks() {
			t.Run(c.name, func(t *testing.T) { c.exercise(t, h) })
		}
	})
}

// check is one subtest.
type check struct {
	name  string
	needs string // the optional field of Harness that it cannot do without
	run   func(t *testing.T, h Harness)
}

func (c check) exercise(t *testing.T, h Harness) {
	if reason, ok := h.Without[c.needs]; ok {
		t.Skipf("%s has no %s: %s", h.Broker, c.needs, reason)
	}
	c.run(t, h)
}

func (h Harness) withDefaults() Harness {
	if h.Timeout == 0 {
		h.Timeout = time.Minute
	}
	if h.UnknownTopic == nil {
		h.UnknownTopic = func(*testing.T) string { return uniqueName("unknown") }
	}
	return h
}

// validate insists that what is missing is missing on purpose: a forgotten
// field would skip promises in silence.
func (h Harness) validate(t *testing.T) {
	t.Helper()
	require.NotEmpty(t, h.Broker, "Harness.Broker is empty: set it to what Origin.Broker says")
	require.NotNil(t, h.NewPublisher, "Harness.NewPublisher is nil: it is required")
	require.NotNil(t, h.NewSubscriber, "Harness.NewSubscriber is nil: it is required")
	require.NotNil(t, h.CreateTopic, "Harness.CreateTopic is nil: it is required")
	require.Equal(t, h.Stop == nil, h.Start == nil, "Harness.Stop and Harness.Start: set both or none")
	missing := map[string]bool{
		"Unroutable": h.Unroutable == nil,
		"Stop":       h.Stop == nil,
		"Ahead":      h.Ahead == nil,
	}
	for field, isNil := range missing {
		if isNil {
			require.NotEmptyf(t, h.Without[field],
				"Harness.%s is nil: set it, or give the reason in Harness.Without[%q]", field, field)
		} else {
			require.NotContainsf(t, h.Without, field, "Harness.%s is set and in Harness.Without too", field)
		}
	}
	for field := range h.Without {
		require.Containsf(t, missing, field, "Harness.Without names an unknown field; optional are %v",
			slices.Sorted(maps.Keys(missing)))
	}
}
