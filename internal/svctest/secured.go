package svctest

import (
	"testing"

	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

// The listeners that [SecuredKafka] has more, for kafka.Server.ListenerAddr.
const (
	KafkaMutualTLS = iota // a certificate of the client is required
	KafkaSASL             // a user or token is
	KafkaExpired          // the broker's certificate has expired
)

// SecuredKafka is [OwnKafka] with further listeners, over TLS with certificates for
// 127.0.0.1 that ca has signed. PLAIN knows the user svc with the password right, SCRAM
// those that a test makes, OAUTHBEARER any token without a signature. The files of the
// broker are ca.pem, server.pem and expired.pem.
func SecuredKafka(t testing.TB, ca *certtest.CA) *kafka.Server {
	t.Helper()
	const login = "org.apache.kafka.common.security."
	return OwnKafkaWith(t, kafka.Config{
		Listeners: []kafka.Listener{KafkaMutualTLS: {Protocol: "SSL"}, KafkaSASL: {Protocol: "SASL_SSL"}, KafkaExpired: {Protocol: "SSL"}},
		Files: map[string][]byte{
			"ca.pem": ca.PEM, "server.pem": ca.Server(t, "127.0.0.1").Both(), "expired.pem": ca.Expired(t, "server", "127.0.0.1").Both(),
		},
		Settings: map[string]string{
			"ssl.keystore.type": "PEM", "ssl.keystore.location": "{dir}/server.pem",
			"ssl.truststore.type": "PEM", "ssl.truststore.location": "{dir}/ca.pem",
			"listener.name.l0.ssl.client.auth":                "required",
			"listener.name.l1.sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
			"listener.name.l1.plain.sasl.jaas.config":         login + `plain.PlainLoginModule required user_svc="right";`,
			"listener.name.l1.scram-sha-256.sasl.jaas.config": login + `scram.ScramLoginModule required;`,
			"listener.name.l1.scram-sha-512.sasl.jaas.config": login + `scram.ScramLoginModule required;`,
			"listener.name.l1.oauthbearer.sasl.jaas.config":   login + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
			"listener.name.l2.ssl.keystore.type":              "PEM",
			"listener.name.l2.ssl.keystore.location":          "{dir}/expired.pem",
		},
	})
}

// SecuredRabbitMQ is [OwnRabbitMQ] that also speaks TLS, with a certificate for
// 127.0.0.1 that ca has signed, and takes a client's certificate for "svc" as a login.
// The files of the server are ca.pem, tls.crt and tls.key.
func SecuredRabbitMQ(t testing.TB, ca *certtest.CA) *rabbitmq.Server {
	t.Helper()
	pair := ca.Server(t, "127.0.0.1")
	s := OwnRabbitMQWith(t, rabbitmq.Config{
		TLSPort: -1,
		Plugins: []string{"rabbitmq_auth_mechanism_ssl"},
		Files:   map[string][]byte{"ca.pem": ca.PEM, "tls.crt": pair.Cert, "tls.key": pair.Key},
		Settings: map[string]string{
			"ssl_options.cacertfile": "{dir}/ca.pem", "ssl_options.certfile": "{dir}/tls.crt", "ssl_options.keyfile": "{dir}/tls.key",
			"ssl_options.verify": "verify_peer", "ssl_options.fail_if_no_peer_cert": "false",
			"auth_mechanisms.1": "PLAIN", "auth_mechanisms.2": "EXTERNAL", "ssl_cert_login_from": "common_name",
		},
	})
	for _, args := range [][]string{{"add_user", "svc", "a password that nobody knows"}, {"set_permissions", "svc", ".*", ".*", ".*"}} {
		if out, err := s.Ctl(t.Context(), args...); err != nil {
			t.Fatal("svctest: ", args[0], ": ", out, err)
		}
	}
	return s
}
