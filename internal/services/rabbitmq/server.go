package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// Config says what server to start.
type Config struct {
	// Port of AMQP on 127.0.0.1. Default: a free one.
	Port int
	// TLSPort is the port of AMQP over TLS on 127.0.0.1, which Settings must
	// configure (ssl_options.*). Default: no TLS; -1 takes a free one.
	TLSPort int
	// Plugins to enable. Default: none.
	Plugins []string
	// Settings are lines of rabbitmq.conf. {dir} in a value is the server's folder.
	// Default: none.
	Settings map[string]string
	// Files are written into the server's folder, by name. Default: none.
	Files map[string][]byte
}

// Server is a RabbitMQ node with its own data. Its methods may be called from
// any goroutine; calls that start and stop it run one after another.
type Server struct {
	cfg      Config
	scripts  string // folder with rabbitmq-server and rabbitmqctl
	epmd     string // the port mapper's program
	epmdPort int
	distPort int
	dir      string // holds data, configuration and log
	account  *proc.Account
	mu       sync.Mutex
	mapper   *proc.Process // nil while stopped
	node     *proc.Process // nil while stopped
}

// Available says why a server could not be started, nil if it can.
func Available() error {
	_, _, err := programs()
	return err
}

// programs finds RabbitMQ's own scripts, not the distribution's wrappers around
// them, which insist on the system's data folder.
func programs() (scripts, epmd string, err error) {
	for _, dir := range []string{"/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, "rabbitmq-server")); err == nil {
			epmd, err := exec.LookPath("epmd")
			return dir, epmd, err
		}
	}
	return "", "", errors.New("rabbitmq-server is not installed (Debian: apt-get install rabbitmq-server)")
}

// Start creates a server with empty data and starts it. The caller must Close
// it.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	var err error
	if s.scripts, s.epmd, err = programs(); err != nil {
		return nil, err
	}
	if s.account, err = proc.Unprivileged("rabbitmq", "nobody"); err != nil {
		return nil, err
	}
	s.cfg.TLSPort = max(cfg.TLSPort, 0)
	ports := []*int{&s.cfg.Port, &s.epmdPort, &s.distPort}
	if cfg.TLSPort < 0 {
		ports = append(ports, &s.cfg.TLSPort)
	}
	for _, port := range ports {
		if *port == 0 {
			if *port, err = proc.FreePort(); err != nil {
				return nil, err
			}
		}
	}
	if s.dir, err = proc.TempDir("rabbitmq", s.account); err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func (s *Server) configure() error {
	conf := fmt.Sprintf("listeners.tcp.1 = %s\ndisk_free_limit.absolute = 50MB\n", s.Addr())
	if s.cfg.TLSPort > 0 {
		conf += fmt.Sprintf("listeners.ssl.1 = %s\n", s.TLSAddr())
	}
	for k, v := range s.cfg.Settings {
		conf += k + " = " + strings.ReplaceAll(v, "{dir}", s.dir) + "\n"
	}
	for name, data := range s.cfg.Files {
		if err := s.WriteFile(name, data); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.dir, "rabbitmq.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(s.dir, "enabled_plugins"), []byte("["+strings.Join(s.cfg.Plugins, ",")+"].\n"), 0o644),
	)
}

// WriteFile writes a file into the server's folder, for the server alone. It reads
// certificates at the next Start.
func (s *Server) WriteFile(name string, data []byte) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return s.account.Own(path)
}

// environment keeps the node away from the machine's own RabbitMQ, and what it
// listens on at 127.0.0.1.
func (s *Server) environment() []string {
	set := map[string]string{
		"HOME":                                s.dir, // the Erlang cookie
		"ERL_EPMD_ADDRESS":                    "127.0.0.1",
		"ERL_EPMD_PORT":                       strconv.Itoa(s.epmdPort),
		"RABBITMQ_CONF_ENV_FILE":              "/dev/null",
		"RABBITMQ_CONFIG_FILE":                filepath.Join(s.dir, "rabbitmq"),
		"RABBITMQ_DIST_PORT":                  strconv.Itoa(s.distPort),
		"RABBITMQ_ENABLED_PLUGINS_FILE":       filepath.Join(s.dir, "enabled_plugins"),
		"RABBITMQ_LOG_BASE":                   s.dir,
		"RABBITMQ_LOGS":                       "-", // stdout, which is our log file
		"RABBITMQ_MNESIA_BASE":                filepath.Join(s.dir, "data"),
		"RABBITMQ_NODENAME":                   fmt.Sprintf("outboxkit%d@localhost", s.cfg.Port),
		"RABBITMQ_NODE_PORT":                  strconv.Itoa(s.cfg.Port),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_CTL_ERL_ARGS":               "-kernel inet_dist_use_interface {127,0,0,1}",
		"detached":                            "true", // the script becomes the server instead of its parent
	}
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if _, ok := set[name]; !ok && !strings.HasPrefix(name, "RABBITMQ_") && !strings.HasPrefix(name, "ERL_") {
			env = append(env, kv)
		}
	}
	for k, v := range set {
		env = append(env, k+"="+v)
	}
	return env
}

func (s *Server) spec(path string, args ...string) proc.Spec {
	return proc.Spec{
		Name: filepath.Base(path), Path: path, Args: args, Env: s.environment(), Dir: s.dir, Account: s.account,
		LogFile: filepath.Join(s.dir, "log"),
	}
}

// Start starts a stopped or killed server again, on the same port and data, and
// returns when it takes connections. Starting a running server does nothing.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node != nil {
		return nil
	}
	var err error
	if s.mapper == nil {
		// Ours and in the foreground: one that the node starts would stay.
		if s.mapper, err = proc.Start(s.spec(s.epmd)); err != nil {
			return err
		}
	}
	node, err := proc.Start(s.spec(filepath.Join(s.scripts, "rabbitmq-server")))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := node.WaitReady(ctx, s.ping); err != nil {
		return errors.Join(err, node.Kill())
	}
	s.node = node
	return nil
}

// Stop shuts the node down in order and keeps its data. Stopping a stopped
// server does nothing.
func (s *Server) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.end(func() error { return s.node.Stop(ctx, syscall.SIGTERM) })
}

// Kill ends the node with SIGKILL and returns when it is gone.
func (s *Server) Kill() error { return s.end(func() error { return s.node.Kill() }) }

func (s *Server) end(node func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.node != nil {
		err = node()
		s.node = nil
	}
	if s.mapper != nil {
		err = errors.Join(err, s.mapper.Kill())
		s.mapper = nil
	}
	return err
}

// Close kills the server, if it runs, and removes its data.
func (s *Server) Close(context.Context) error {
	return errors.Join(s.Kill(), os.RemoveAll(s.dir))
}

// URL returns the AMQP URL of the user guest in the virtual host "/".
func (s *Server) URL() string { return "amqp://guest:guest@" + s.Addr() + "/" }

// Addr returns the server's host:port.
func (s *Server) Addr() string { return proc.Address(s.cfg.Port) }

// TLSAddr returns the host:port of AMQP over TLS.
func (s *Server) TLSAddr() string { return proc.Address(s.cfg.TLSPort) }

// Pid returns the process id of the running server, 0 while it is stopped.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		return 0
	}
	return s.node.Pid()
}

// Ctl runs rabbitmqctl on the node, for example with "list_queues", and returns
// what it prints. It takes a second or two.
func (s *Server) Ctl(ctx context.Context, args ...string) (string, error) {
	return proc.Output(ctx, s.spec(filepath.Join(s.scripts, "rabbitmqctl"), args...))
}
