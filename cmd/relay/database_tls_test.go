package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// A relay's connections to Postgres use certificates that are renewed while it runs,
// whichever way the configuration names them.
func TestDatabaseCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	server, dir := pgtest.Secured(t), t.TempDir()
	write := func(ca *certtest.CA) {
		pair := ca.Client(t, "app")
		certtest.Write(t, dir, "ca.pem", ca.PEM)
		certtest.Write(t, dir, "tls.crt", pair.Cert)
		certtest.Write(t, dir, "tls.key", pair.Key)
	}
	write(server.CA)
	url := fmt.Sprintf("postgres://app@127.0.0.1:%d/postgres", server.Port())
	next := certtest.NewCA(t, "next")
	for i, database := range []string{
		fmt.Sprintf("{url: %q, tls: {ca_file: %[2]s/ca.pem, cert_file: %[2]s/tls.crt, key_file: %[2]s/tls.key}}", url, dir),
		fmt.Sprintf("{url: '%s?sslmode=verify-full&sslrootcert=%[2]s/ca.pem&sslcert=%[2]s/tls.crt&sslkey=%[2]s/tls.key'}", url, dir),
	} {
		ca, renewed := server.CA, next
		if i > 0 {
			ca, renewed = next, server.CA
		}
		write(ca)
		c, err := loadConfig(writeConfig(t, "database: "+database+"\npipelines: [{name: x, kafka: {brokers: [localhost:9092]}}]\n"))
		require.NoError(t, err)
		pool, err := openPool(t.Context(), c)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		require.NoError(t, pool.Ping(t.Context()), database)

		server.Replace(t, renewed, renewed.Server(t, "127.0.0.1"))
		write(renewed)
		require.Eventually(t, func() bool {
			pool.Reset()
			return pool.Ping(t.Context()) == nil
		}, 30*time.Second, 20*time.Millisecond, database)
	}
}
