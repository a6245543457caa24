package svctest

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Kafka returns the bootstrap addresses of a Kafka: the one in
// $OUTBOXKIT_KAFKA_BROKERS (comma separated), else an in-process imitation for
// this test alone. Both create topics only when asked to through the admin API.
func Kafka(t testing.TB) []string {
	t.Helper()
	if brokers := os.Getenv("OUTBOXKIT_KAFKA_BROKERS"); brokers != "" {
		return strings.Split(brokers, ",")
	}
	return FakeKafka(t).ListenAddrs()
}

// FakeKafka returns an in-process Kafka with one broker for this test alone,
// whatever the environment says, for example to inject faults with its
// ControlKey.
func FakeKafka(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal("svctest: start kfake: ", err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// RealKafka returns the bootstrap addresses of the real Kafka in
// $OUTBOXKIT_KAFKA_BROKERS.
func RealKafka(t testing.TB) []string {
	t.Helper()
	return strings.Split(fromEnv(t, "OUTBOXKIT_KAFKA_BROKERS"), ",")
}

// RabbitMQ returns the AMQP URL in $OUTBOXKIT_AMQP_URL.
func RabbitMQ(t testing.TB) string {
	t.Helper()
	return fromEnv(t, "OUTBOXKIT_AMQP_URL")
}

// Registry returns the base URL of the schema registry in
// $OUTBOXKIT_REGISTRY_URL; it speaks Confluent's API and the URL ends in
// /apis/ccompat/v7 where it is Apicurio's.
func Registry(t testing.TB) string {
	t.Helper()
	return strings.TrimSuffix(fromEnv(t, "OUTBOXKIT_REGISTRY_URL"), "/")
}

// Unique returns prefix and a random suffix: a name for a topic, queue, group
// or subject that no other test or run uses.
func Unique(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:10])
}

func fromEnv(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		Missing(t, name+" is not set: run `make test`, or `make services` and paste what it prints")
	}
	return value
}

// Missing skips the test, or fails it where services are required.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
		t.Fatal("svctest: OUTBOXKIT_REQUIRE_SERVICES=1, but ", reason)
	}
	t.Skip("svctest: ", reason)
}
