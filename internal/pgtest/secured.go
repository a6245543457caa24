package pgtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/services/postgres"
)

// SecuredServer is a Postgres that lets the role "app" in over TLS only, with a
// certificate of that name, and the superuser as ever.
type SecuredServer struct {
	*postgres.Server
	CA *certtest.CA // of both sides
}

// Secured starts a [SecuredServer] for this test alone. Its certificate is for
// 127.0.0.1.
func Secured(t testing.TB) *SecuredServer {
	t.Helper()
	s := &SecuredServer{CA: certtest.NewCA(t, "ours")}
	pair := s.CA.Server(t, "127.0.0.1")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	server, err := postgres.Start(ctx, postgres.Config{
		Settings: map[string]string{
			"shared_buffers": "16MB", "max_connections": "20", "ssl": "on", "hba_file": "{dir}/pg_hba.conf",
			"ssl_ca_file": "{dir}/ca.pem", "ssl_cert_file": "{dir}/tls.crt", "ssl_key_file": "{dir}/tls.key",
		},
		Files: map[string][]byte{
			"ca.pem": s.CA.PEM, "tls.crt": pair.Cert, "tls.key": pair.Key,
			"pg_hba.conf": []byte("host all postgres 127.0.0.1/32 trust\nhostssl all app 127.0.0.1/32 cert\n"),
		},
	})
	if err != nil {
		t.Fatal("pgtest: start a server: ", err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error("pgtest: stop the server: ", err)
		}
	})
	s.Server = server
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE ROLE app LOGIN"); err != nil {
		t.Fatal("pgtest: ", err)
	}
	return s
}

// Replace gives the server another authority of clients and another certificate, for
// connections from a moment later on.
func (s *SecuredServer) Replace(t testing.TB, ca *certtest.CA, pair certtest.Pair) {
	t.Helper()
	for name, data := range map[string][]byte{"ca.pem": ca.PEM, "tls.crt": pair.Cert, "tls.key": pair.Key} {
		if err := s.WriteFile(name, data); err != nil {
			t.Fatal("pgtest: ", err)
		}
	}
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal("pgtest: ", err)
	}
}
