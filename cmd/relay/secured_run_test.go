package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// What relay.yaml says of certificates and logins is what a daemon does: an event gets
// to Kafka by a client's certificate and by PLAIN over TLS, and to RabbitMQ by EXTERNAL.
func TestRunOverSecuredBrokers(t *testing.T) {
	t.Parallel()
	ca, dir := certtest.NewCA(t, "ours"), t.TempDir()
	kafka, rabbit := svctest.SecuredKafka(t, ca), svctest.SecuredRabbitMQ(t, ca)
	pair := ca.Client(t, "svc")
	authority := certtest.Write(t, dir, "ca.pem", ca.PEM)
	own := fmt.Sprintf("{ca_file: %s, cert_file: %s, key_file: %s}", authority, certtest.Write(t, dir, "tls.crt", pair.Cert), certtest.Write(t, dir, "tls.key", pair.Key))
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_8_0_0
	client, err := sarama.NewClient(kafka.Brokers(), conf)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	admin, err := sarama.NewClusterAdminFromClient(client)
	require.NoError(t, err)
	for _, topic := range []string{"by-certificate", "by-password"} {
		require.NoError(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))
	}

	url, conn := outboxAs(t)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ('orders', 'k', 't', 's', '{}')`)
	require.NoError(t, err)
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
drain_timeout: 1s
admin: {listen: off}
pipelines:
  - name: certificate
    topics: {orders: by-certificate}
    kafka: {brokers: [%q], tls: %s}
  - name: password
    topics: {orders: by-password}
    kafka: {brokers: [%q], tls: {ca_file: %s}, username: svc, password: right, compression: gzip}
  - name: external
    rabbitmq: {url: 'amqps://%s/', tls: %s, declare: true}
`, url, kafka.ListenerAddr(svctest.KafkaMutualTLS), own, kafka.ListenerAddr(svctest.KafkaSASL), authority, rabbit.TLSAddr(), own))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }() // of no effect when it has ended
	for _, topic := range []string{"by-certificate", "by-password"} {
		require.Eventually(t, func() bool {
			end, err := client.GetOffset(topic, 0, sarama.OffsetNewest)
			return err == nil && end > 0
		}, time.Minute, 20*time.Millisecond, topic)
	}
	plain, err := amqp.Dial(rabbit.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, plain.Close()) }()
	require.Eventually(t, func() bool {
		ch, err := plain.Channel()
		if err != nil {
			return false
		}
		defer ch.Close()                                                           //nolint:errcheck // a queue that is not there yet has closed it
		q, err := ch.QueueDeclarePassive("orders", true, false, false, false, nil) // Get is not for a queue with a single active consumer
		return err == nil && q.Messages == 1
	}, time.Minute, 20*time.Millisecond, "RabbitMQ")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
}
