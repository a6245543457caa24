package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// Server is a running PgBouncer.
type Server struct {
	port    int
	program string
	dir     string // holds configuration and log
	account *proc.Account
	process *proc.Process
}

// Available says why a server could not be started, nil if it can.
func Available() error {
	_, err := program()
	return err
}

func program() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	path, err := exec.LookPath("/usr/sbin/pgbouncer") // not in every user's PATH
	if err != nil {
		return "", errors.New("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
	}
	return path, nil
}

// Start starts a PgBouncer on a free port in front of the Postgres at upstream
// (host:port), which it enters as the user "postgres" without a password. The
// caller must Close it.
func Start(ctx context.Context, upstream string) (*Server, error) {
	s := &Server{}
	var err error
	if s.program, err = program(); err != nil {
		return nil, err
	}
	if s.account, err = proc.Unprivileged("postgres", "nobody"); err != nil {
		return nil, err
	}
	if s.port, err = proc.FreePort(); err != nil {
		return nil, err
	}
	if s.dir, err = proc.TempDir("pgbouncer", s.account); err != nil {
		return nil, err
	}
	if err := s.start(ctx, upstream); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, upstream string) error {
	if err := s.configure(upstream); err != nil {
		return err
	}
	var err error
	s.process, err = proc.Start(proc.Spec{
		Name: "pgbouncer", Path: s.program, Args: []string{s.file("pgbouncer.ini")},
		Dir: s.dir, LogFile: s.file("log"), Account: s.account,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return s.process.WaitReady(ctx, func(ctx context.Context) error { return s.admin(ctx, "SHOW VERSION") })
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) configure(upstream string) error {
	host, port, err := net.SplitHostPort(upstream)
	if err != nil {
		return fmt.Errorf("pgbouncer: upstream %q is no host:port: %w", upstream, err)
	}
	// Retry at once when the upstream is down: the default of 15 seconds would
	// decide how long a failover test takes.
	ini := fmt.Sprintf(`[databases]
* = host=%s port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
admin_users = postgres
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
server_login_retry = 0.1
ignore_startup_parameters = extra_float_digits
`, host, port, s.port, s.file("users.txt"))
	return errors.Join(
		os.WriteFile(s.file("pgbouncer.ini"), []byte(ini), 0o644),
		os.WriteFile(s.file("users.txt"), []byte(`"postgres" ""`+"\n"), 0o644),
	)
}

// Route sends new transactions to the Postgres at upstream (host:port). Clients
// stay connected; connections to the former upstream are closed as soon as they
// are idle.
func (s *Server) Route(ctx context.Context, upstream string) error {
	if err := s.configure(upstream); err != nil {
		return err
	}
	return s.admin(ctx, "RELOAD")
}

func (s *Server) admin(ctx context.Context, command string) error {
	cfg, err := pgx.ParseConfig(s.URL("pgbouncer"))
	if err != nil {
		return err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // all that the console speaks
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, command)
	return err
}

// Close stops PgBouncer and its connections.
func (s *Server) Close(ctx context.Context) error {
	var err error
	if s.process != nil {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err = s.process.Stop(ctx, syscall.SIGTERM) // immediate shutdown
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// URL returns the connection string of the user "postgres" for a database.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", s.Addr(), database)
}

// Addr returns PgBouncer's host:port.
func (s *Server) Addr() string { return proc.Address(s.port) }

// Pid returns PgBouncer's process id.
func (s *Server) Pid() int { return s.process.Pid() }
