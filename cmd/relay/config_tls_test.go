package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/internal/certtest"
)

const securedConfig = `database:
  url: postgres://relay@db/shop
  tls: {ca_file: "${CERTS}/ca.pem"}
pipelines:
  - name: kafka
    kafka:
      brokers: [broker:9093]
      tls:
        ca_file: ${CERTS}/ca.pem
        cert_file: ${CERTS}/tls.crt
        key_file: ${CERTS}/tls.key
        server_name: kafka.internal
      mechanism: scram-sha-512
      username: svc
      password: hunter2
    wire:
      format: confluent
      registry: {url: "https://registry", tls: {ca_file: system}}
  - name: rabbit
    rabbitmq:
      url: amqps://rabbit/
      tls: {ca_file: "${CERTS}/ca.pem"}
`

// certificates are files for securedConfig, below $CERTS.
func certificates(t *testing.T) string {
	t.Helper()
	dir, ca := t.TempDir(), certtest.NewCA(t, "ours")
	pair := ca.Client(t, "relay")
	certtest.Write(t, dir, "ca.pem", ca.PEM)
	certtest.Write(t, dir, "tls.crt", pair.Cert)
	certtest.Write(t, dir, "tls.key", pair.Key)
	t.Setenv("CERTS", dir)
	return dir
}

func TestSecuredConfig(t *testing.T) {
	dir := certificates(t)
	ca := filepath.Join(dir, "ca.pem")
	c, err := loadConfig(writeConfig(t, securedConfig))
	require.NoError(t, err)
	got := c.Pipelines[0].Kafka.config(nil)
	require.Equal(t, &certs.Files{CAFile: ca, CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ServerName: "kafka.internal"}, got.TLSFiles)
	require.Equal(t, kafka.ScramSHA512, got.Mechanism)
	require.Equal(t, &certs.Files{}, c.Pipelines[0].Wire.Registry.config().TLSFiles, "the system's authorities")
	require.Equal(t, &certs.Files{CAFile: ca}, c.Pipelines[1].RabbitMQ.config(nil).TLSFiles)
	require.Equal(t, &certs.Files{CAFile: ca}, c.Database.TLS.files())
	c, err = loadConfig(writeConfig(t, strings.ReplaceAll(goodConfig, "${RELAY_TEST_PASSWORD}", "x")))
	require.NoError(t, err)
	require.Nil(t, c.Pipelines[0].Kafka.config(nil).TLSFiles, "no block, no TLS")
	require.Equal(t, &certs.Files{}, (&tlsConfig{}).files(), "an empty block is TLS")
}

func TestBadSecurityNamesLineAndField(t *testing.T) {
	certificates(t)
	for name, c := range map[string]struct{ from, to, want string }{
		"unknown key":    {"server_name: kafka", "servername: kafka", `relay.yaml:12: unknown field "servername"`},
		"true":           {`tls: {ca_file: system}`, "tls: true", `relay.yaml:18: pipelines[0].wire.registry.tls: is a true or false, must be a group of keys`},
		"only comments":  {"tls: {ca_file: \"${CERTS}/ca.pem\"}\n", "tls:\n      # ca_file: x\n", "tls: is empty: write {} for TLS"},
		"no such file":   {"ca_file: ${CERTS}/ca.pem\n", "ca_file: ${CERTS}/none.pem\n", `none.pem": no such file`},
		"no CA":          {"ca_file: ${CERTS}/ca.pem\n", "ca_file: ${CERTS}/tls.key\n", `pipelines[0].kafka.tls.ca_file: `},
		"half a pair":    {"        key_file: ${CERTS}/tls.key\n", "", `pipelines[0].kafka.tls.key_file: is empty but cert_file is set`},
		"unset variable": {"cert_file: ${CERTS}", "cert_file: ${RELAY_TEST_NO_SUCH}", `pipelines[0].kafka.tls.cert_file: environment variable`},
		"two ways":       {"db/shop", "db/shop?sslmode=require", `relay.yaml:3: database.tls: stands beside sslmode in the URL`},
		"plain AMQP":     {"amqps://", "amqp://", `relay.yaml:22: pipelines[1].rabbitmq.tls: is set but the URL is plain text`},
		"plain registry": {"https://", "http://", `pipelines[0].wire.registry.tls: is set but the URL is plain text`},
		"mechanism":      {"scram-sha-512", "kerberos", `relay.yaml:13: pipelines[0].kafka.mechanism: "kerberos" is not known`},
		"no password":    {"      password: hunter2\n", "", `pipelines[0].kafka.password: is empty, which SCRAM-SHA-512 needs`},
		"no token":       {"mechanism: scram-sha-512\n      username: svc\n      password: hunter2", "mechanism: OAUTHBEARER", `pipelines[0].kafka.oauth: is missing`},
		"two tokens": {"mechanism: scram-sha-512\n      username: svc\n      password: hunter2",
			"token_file: x\n      oauth: {token_url: 'https://u:hunter2@h', client_id: x, client_secret: hunter2}", `pipelines[0].kafka.token_file: stands beside oauth`},
		"URL with a user": {"mechanism: scram-sha-512\n      username: svc\n      password: hunter2",
			"oauth: {token_url: 'https://u:hunter2@h', client_id: x, client_secret: hunter2}", `relay.yaml:13: pipelines[0].kafka.oauth.token_url: is no http or https URL`},
		"plain issuer": {"mechanism: scram-sha-512\n      username: svc\n      password: hunter2",
			"oauth: {token_url: 'http://h', client_id: x, client_secret: hunter2, tls: {}}", `relay.yaml:13: pipelines[0].kafka.oauth.tls: is set but token_url is plain text`},
		"root in the URL": {"url: postgres://relay@db/shop\n  tls: {ca_file: \"${CERTS}/ca.pem\"}", "url: postgres://relay:hunter2@db/shop?sslrootcert=/no/such", `relay.yaml:2: database.url: names a file that cannot be read: open /no/such`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, securedConfig, c.from)
			_, err := loadConfig(writeConfig(t, strings.Replace(securedConfig, c.from, c.to, 1)))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// A file of v0.1.0-alpha.1, where kafka.tls was true or false, means what it meant.
func TestKafkaTLSOfThePreviousRelease(t *testing.T) {
	t.Parallel()
	file := func(was string) string {
		return writeConfig(t, "database: {url: postgres://h/d}\npipelines:\n  - {name: x, kafka: {brokers: [a], tls: "+was+"}}\n")
	}
	for was, want := range map[string]*certs.Files{"true": {}, "false": nil, "on": {}, "no": nil, "!!bool true": {}} {
		c, v, err := settings{path: file(was)}.checked()
		require.NoError(t, err)
		require.NoError(t, v.err(), was)
		require.Equal(t, want, c.Pipelines[0].Kafka.config(nil).TLSFiles, was)
	}
	for _, bad := range []string{"maybe", "1", "[true]", ""} {
		_, err := loadConfig(file(bad))
		require.ErrorContains(t, err, "relay.yaml:3: pipelines[0].kafka.tls: is", bad)
	}
}

// What a broker that is not Apache's may need.
func TestKafkaClientSettings(t *testing.T) {
	t.Parallel()
	load := func(more string) (config, error) {
		return loadConfig(writeConfig(t, "database: {url: postgres://h/d}\npipelines:\n  - {name: x, kafka: {brokers: [a]"+more+"}}\n"))
	}
	for name, want := range map[string]sarama.CompressionCodec{
		"": sarama.CompressionSnappy, ", compression: snappy": sarama.CompressionSnappy, ", compression: none": sarama.CompressionNone,
		", compression: gzip": sarama.CompressionGZIP, ", compression: lz4": sarama.CompressionLZ4, ", compression: zstd": sarama.CompressionZSTD,
	} {
		c, err := load(name)
		require.NoError(t, err)
		client := sarama.NewConfig()
		client.Producer.Compression = sarama.CompressionSnappy // as the adapter's default
		c.Pipelines[0].Kafka.config(nil).Sarama(client)
		require.Equal(t, want, client.Producer.Compression, name)
	}
	c, err := load(", max_request_bytes: 1_000_000, publish_timeout: 60s")
	require.NoError(t, err)
	got := c.Pipelines[0].Kafka.config(nil)
	require.Equal(t, 1_000_000, got.MaxRequestBytes)
	require.Equal(t, time.Minute, got.PublishTimeout)
	for more, want := range map[string]string{
		"compression: brotli":       `kafka.compression: "brotli" is not known: use snappy, none, gzip, lz4, zstd`,
		"max_request_bytes: 9":      "kafka.max_request_bytes: 9 is not between 65536 and 104857600",
		"max_request_bytes: 1 MB":   "kafka.max_request_bytes: is a text, must be a whole number",
		"publish_timeout: -1s":      `kafka.publish_timeout: "-1s" is not a positive duration`,
		"publish_timeout: a minute": `kafka.publish_timeout: "a minute" is not a positive duration`,
	} {
		_, err := load(", " + more)
		require.ErrorContains(t, err, "relay.yaml:3: pipelines[0]."+want)
		require.NotContains(t, err.Error(), "publishtimeout")
	}
}

func TestTokens(t *testing.T) {
	require.Nil(t, (&kafkaConfig{}).token())
	file := filepath.Join(t.TempDir(), "token")
	get := (&kafkaConfig{TokenFile: file}).token()
	_, err := get(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, token := range []string{"first", "second"} {
		require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		got, err := get(t.Context())
		require.NoError(t, err)
		require.Equal(t, token, got)
	}
	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	_, err = get(t.Context())
	require.ErrorContains(t, err, "is empty")
}

// What a file can say in a block, variables can too.
func TestTLSFromTheEnvironment(t *testing.T) {
	t.Setenv("OUTBOXKIT_PIPELINES_0_KAFKA_TLS_CA_FILE", "system")
	c, err := loadConfig(writeConfig(t, plainConfig))
	require.NoError(t, err)
	require.Equal(t, &certs.Files{}, c.Pipelines[0].Kafka.config(nil).TLSFiles)
}

// The issuer is asked once for a token that is good, and its refusal is told
// without its words or our secret.
func TestTokensOfAnIssuer(t *testing.T) {
	var asked atomic.Int32
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if user, secret, _ := r.BasicAuth(); user != "relay" || secret != "right" || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, secret)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"a token","token_type":"Bearer","expires_in":3600}`)
	}))
	defer issuer.Close()
	config := oauthConfig{TokenURL: issuer.URL, ClientID: "relay", ClientSecret: "right", Scopes: []string{"kafka"}}
	get := (&kafkaConfig{OAuth: &config}).token()
	for range 2 {
		got, err := get(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a token", got)
	}
	require.EqualValues(t, 1, asked.Load())

	// Behind an authority of one's own, over TLS.
	dir, ca := t.TempDir(), certtest.NewCA(t, "ours")
	pair := ca.Server(t, "127.0.0.1")
	own, err := tls.X509KeyPair(pair.Cert, pair.Key)
	require.NoError(t, err)
	secure := httptest.NewUnstartedServer(issuer.Config.Handler)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	behind := config
	behind.TokenURL = secure.URL
	_, err = behind.token()(t.Context())
	require.ErrorContains(t, err, "unknown authority")
	behind.TLS = &tlsConfig{CAFile: certtest.Write(t, dir, "ca.pem", ca.PEM)}
	_, err = behind.token()(t.Context())
	require.NoError(t, err)

	config.ClientSecret = "hunter2"
	_, err = (&kafkaConfig{OAuth: &config}).token()(t.Context())
	require.ErrorContains(t, err, "401")
	require.ErrorContains(t, err, "invalid_client")
	require.NotContains(t, err.Error(), "hunter2")
}
