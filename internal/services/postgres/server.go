package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// Server is a PostgreSQL server with its own data. Its methods may be called
// from any goroutine; calls that start and stop it run one after another.
type Server struct {
	cfg     Config
	bin     string
	dir     string // holds data and log
	account *proc.Account

	mu      sync.Mutex
	process *proc.Process // nil while stopped

	orphan io.Closer // see CloseWithProcess
}

// Start creates a server with empty data and starts it. The caller must Close
// it. The first call on a machine downloads about 10 MB.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := s.initialize(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// prepare finds the programs, a port and a folder for a server.
func prepare(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg}
	var err error
	if s.account, err = proc.Unprivileged("postgres", "nobody"); err != nil {
		return nil, err
	}
	if s.bin, err = binaries(ctx, cfg.Version); err != nil {
		return nil, err
	}
	if cfg.Port == 0 {
		if s.cfg.Port, err = proc.FreePort(); err != nil {
			return nil, err
		}
	}
	if s.dir, err = proc.TempDir("postgres", s.account); err != nil {
		return nil, err
	}
	for name, data := range cfg.Files {
		if err := s.WriteFile(name, data); err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
	}
	return s, nil
}

// WriteFile writes a file into the server's folder, for the server alone. A running
// server reads certificates and pg_hba.conf again after Reload.
func (s *Server) WriteFile(name string, data []byte) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return s.account.Own(path)
}

// Reload has the server read its files again, for connections from now on.
func (s *Server) Reload(ctx context.Context) error {
	return s.exec(ctx, "SELECT pg_reload_conf()")
}

func (s *Server) initialize(ctx context.Context) error {
	_, err := proc.Output(ctx, s.spec("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync"))
	return err
}

func (s *Server) spec(program string, args ...string) proc.Spec {
	return proc.Spec{
		Name: program, Path: filepath.Join(s.bin, program), Args: args, Dir: s.dir, Account: s.account,
		DeathSignal: syscall.SIGQUIT, // lets postgres end its children too
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Start starts a stopped or killed server again, on the same port and data, and
// returns when it answers. Starting a running server does nothing.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	spec := s.spec("postgres", s.cfg.arguments(s.dir, s.data())...)
	spec.LogFile = filepath.Join(s.dir, "log")
	if s.cfg.Clock {
		if err := s.fakeClock(&spec); err != nil {
			return err
		}
	}
	p, err := proc.Start(spec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.WaitReady(ctx, s.ping); err != nil {
		return errors.Join(err, p.Kill())
	}
	s.process = p
	return nil
}

func (s *Server) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// Stop shuts the server down in order ("fast": open transactions are rolled
// back) and keeps its data. Stopping a stopped server does nothing.
func (s *Server) Stop(ctx context.Context) error { return s.end(ctx, syscall.SIGINT) }

// Kill ends the server as a crash does ("immediate": no checkpoint, sessions
// cut off) and returns when it is gone. The next Start recovers from the log.
//
// It sends SIGQUIT and not SIGKILL, which would leave backends behind that
// finish what they are doing and keep the next Start from using the data.
func (s *Server) Kill() error { return s.end(context.Background(), syscall.SIGQUIT) }

func (s *Server) end(ctx context.Context, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := s.process.Stop(ctx, sig)
	s.process = nil
	return err
}

// Close kills the server, if it runs, and removes its data.
func (s *Server) Close(context.Context) error {
	if s.orphan != nil {
		defer s.orphan.Close() //nolint:errcheck // its shell finds nothing left
	}
	return errors.Join(s.Kill(), os.RemoveAll(s.dir))
}

// URL returns the connection string of the superuser "postgres" for a database;
// "postgres" is one that always exists.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: s.Addr(), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr returns the server's host:port.
func (s *Server) Addr() string { return proc.Address(s.cfg.Port) }

// Port returns the server's TCP port.
func (s *Server) Port() int { return s.cfg.Port }

// Pid returns the process id of the running server, 0 while it is stopped.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid()
}

// Major returns the server's major version.
func (s *Server) Major() int {
	var major int
	_, _ = fmt.Sscanf(s.cfg.Version, "%d.", &major) // validated by prepare
	return major
}

// Log returns the path of the server's log, for messages.
func (s *Server) Log() string { return filepath.Join(s.dir, "log") }
