package pgcerts_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/certs/pgcerts"
	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// client connects to a real server with files in a folder of its own.
type client struct {
	*pgtest.SecuredServer
	dir string
}

// files writes what a client needs, over what was there.
func (c client) files(t *testing.T, ca *certtest.CA, name string) certs.Files {
	t.Helper()
	pair := ca.Client(t, name)
	return certs.Files{
		CAFile:   certtest.Write(t, c.dir, "ca.pem", ca.PEM),
		CertFile: certtest.Write(t, c.dir, "tls.crt", pair.Cert), KeyFile: certtest.Write(t, c.dir, "tls.key", pair.Key),
	}
}

// pool is on TLS whatever the URL says.
func (c client) pool(t *testing.T, host string, files certs.Files) *pgxpool.Pool {
	t.Helper()
	pc, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://app@%s:%d/postgres?sslmode=prefer&connect_timeout=10", host, c.Port()))
	require.NoError(t, err)
	pc.BeforeConnect = pgcerts.BeforeConnect(files)
	pool, err := pgxpool.NewWithConfig(t.Context(), pc)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// connect makes a new connection, over TLS.
func connect(t *testing.T, pool *pgxpool.Pool) error {
	t.Helper()
	pool.Reset()
	var encrypted bool
	err := pool.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted)
	if err == nil {
		require.True(t, encrypted)
	}
	return err
}

// eventually waits for a server that reloads; want "" is a connection.
func eventually(t *testing.T, pool *pgxpool.Pool, want string) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := connect(t, pool)
		return err == nil && want == "" || err != nil && want != "" && strings.Contains(err.Error(), want)
	}, 30*time.Second, 20*time.Millisecond, want)
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	c := client{pgtest.Secured(t), t.TempDir()}
	const host = "127.0.0.1"
	good := c.pool(t, host, c.files(t, c.CA, "app"))
	require.NoError(t, connect(t, good))
	require.ErrorContains(t, connect(t, c.pool(t, "localhost", c.files(t, c.CA, "app"))), "match localhost")
	named := c.files(t, c.CA, "app")
	named.ServerName = host
	require.NoError(t, connect(t, c.pool(t, "localhost", named)))
	other := certtest.NewCA(t, "other")
	wrong := c.files(t, c.CA, "app")
	wrong.CAFile = certtest.Write(t, c.dir, "other.pem", other.PEM)
	require.ErrorContains(t, connect(t, c.pool(t, host, wrong)), "unknown authority")
	wrong.CAFile = filepath.Join(c.dir, "none")
	require.ErrorContains(t, connect(t, c.pool(t, host, wrong)), "CAFile")
	require.ErrorContains(t, connect(t, c.pool(t, host, c.files(t, c.CA, "stranger"))), "certificate authentication failed")

	c.files(t, c.CA, "app")
	c.Replace(t, c.CA, c.CA.Expired(t, "server", host))
	eventually(t, good, "expired")
	next := certtest.NewCA(t, "next")
	c.Replace(t, next, next.Server(t, host))
	eventually(t, good, "unknown authority")
	c.files(t, next, "app")
	eventually(t, good, "")
}

// What could be plain text must not be.
func TestNothingFallsBack(t *testing.T) {
	t.Parallel()
	cc, err := pgx.ParseConfig("host=a,b,/var/run port=5432 user=app dbname=shop sslmode=prefer")
	require.NoError(t, err)
	require.NoError(t, pgcerts.BeforeConnect(certs.Files{})(t.Context(), cc))
	require.Equal(t, "a", cc.TLSConfig.ServerName)
	require.False(t, cc.TLSConfig.InsecureSkipVerify)
	require.Len(t, cc.Fallbacks, 2, "each host once")
	require.Equal(t, "b", cc.Fallbacks[0].TLSConfig.ServerName)
	require.Nil(t, cc.Fallbacks[1].TLSConfig, "a Unix socket")
}
