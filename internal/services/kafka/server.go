package kafka

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/maven"
	"github.com/outboxkit/outboxkit/internal/services/proc"
)

var (
	//go:embed pom.xml
	pom []byte
	//go:embed SHA256SUMS
	sums []byte
)

func artifact() maven.Artifact { return maven.Artifact{Name: "kafka", POM: pom, Sums: sums} }

// Fetch brings Kafka (about 45 MB) into the cache, once per machine.
func Fetch(ctx context.Context) error {
	_, err := artifact().Fetch(ctx)
	return err
}

// Available says why a server could not be started, nil if it can: Fetch has
// run and there is a Java.
func Available() error {
	_, err := artifact().Dir()
	if err != nil {
		return err
	}
	_, err = maven.Java()
	return err
}

// Config says what server to start.
type Config struct {
	// Port of the broker on 127.0.0.1. Default: a free one.
	Port int
	// Settings are added to, or replace, lines of server.properties. {dir} in a
	// value is the server's folder. Default: none.
	Settings map[string]string
	// Files are written into the server's folder, by name. Default: none.
	Files map[string][]byte
	// Listeners are further ways to the broker, each telling its clients an address
	// of its own: a proxy's, for example. Default: none.
	Listeners []Listener
}

// Listener is a further way to the broker.
type Listener struct {
	Port       int    // on 127.0.0.1; 0: a free one
	Advertised string // host:port that clients are told; "": the port
	Protocol   string // PLAINTEXT (default), SSL, SASL_PLAINTEXT or SASL_SSL
}

// Server is a Kafka broker with its own data. Its methods may be called from
// any goroutine; calls that start and stop it run one after another.
//
// Topics are not created by using them; group rebalances start at once.
type Server struct {
	cfg        Config
	controller int // port of the KRaft quorum's only member
	java, jars string
	dir        string // holds data, server.properties and log

	mu      sync.Mutex
	process *proc.Process // nil while stopped
}

// Start creates a server with empty data and starts it. The caller must Close
// it.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	var err error
	if s.jars, err = artifact().Dir(); err != nil {
		return nil, err
	}
	if s.java, err = maven.Java(); err != nil {
		return nil, err
	}
	if s.controller, err = proc.FreePort(); err != nil {
		return nil, err
	}
	if s.cfg.Port == 0 {
		if s.cfg.Port, err = proc.FreePort(); err != nil {
			return nil, err
		}
	}
	s.cfg.Listeners = slices.Clone(cfg.Listeners)
	for i := range s.cfg.Listeners {
		if l := &s.cfg.Listeners[i]; l.Port == 0 {
			if l.Port, err = proc.FreePort(); err != nil {
				return nil, err
			}
		}
	}
	if s.dir, err = proc.TempDir("kafka", nil); err != nil {
		return nil, err
	}
	for name, data := range cfg.Files {
		if err := s.WriteFile(name, data); err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
	}
	if err := s.format(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// WriteFile writes a file into the server's folder. Those that a listener uses are
// read at the next Start.
func (s *Server) WriteFile(name string, data []byte) error {
	return os.WriteFile(filepath.Join(s.dir, name), data, 0o600)
}

// format writes the configuration and the metadata of an empty cluster.
func (s *Server) format(ctx context.Context) error {
	if err := os.WriteFile(s.properties(), s.configuration(), 0o644); err != nil {
		return err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	id[0] &= 0x7f        // or the text may begin with "-", which is taken for an option
	_, err := proc.Output(ctx, s.spec("kafka.tools.StorageTool",
		"format", "-t", base64.RawURLEncoding.EncodeToString(id), "-c", s.properties()))
	return err
}

func (s *Server) spec(class string, args ...string) proc.Spec {
	jvm := []string{
		"-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-cp", filepath.Join(s.jars, "*"), class,
	}
	return proc.Spec{Name: "kafka", Path: s.java, Args: append(jvm, args...), Dir: s.dir}
}

func (s *Server) properties() string { return filepath.Join(s.dir, "server.properties") }

// Start starts a stopped or killed server again, on the same port and data, and
// returns when it answers. Starting a running server does nothing.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	spec := s.spec("kafka.Kafka", s.properties())
	spec.LogFile = filepath.Join(s.dir, "log")
	p, err := proc.Start(spec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := p.WaitReady(ctx, s.ping); err != nil {
		return errors.Join(err, p.Kill())
	}
	s.process = p
	return nil
}

// Stop shuts the broker down in order and keeps its data. Stopping a stopped
// server does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := s.process.Stop(ctx, syscall.SIGTERM)
	s.process = nil
	return err
}

// Kill ends the broker with SIGKILL and returns when it is gone.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	err := s.process.Kill()
	s.process = nil
	return err
}

// Close kills the server, if it runs, and removes its data.
func (s *Server) Close(context.Context) error {
	return errors.Join(s.Kill(), os.RemoveAll(s.dir))
}

// Addr returns the broker's host:port.
func (s *Server) Addr() string { return proc.Address(s.cfg.Port) }

// ListenerAddr returns the host:port of one of Config.Listeners.
func (s *Server) ListenerAddr(i int) string { return proc.Address(s.cfg.Listeners[i].Port) }

// Brokers returns the bootstrap addresses.
func (s *Server) Brokers() []string { return []string{s.Addr()} }

// Pid returns the process id of the running server, 0 while it is stopped.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid()
}

// configuration returns server.properties.
func (s *Server) configuration() []byte {
	settings := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"controller.quorum.voters":                         "1@" + proc.Address(s.controller),
		"listeners":                                        "PLAINTEXT://" + s.Addr() + ",CONTROLLER://" + proc.Address(s.controller),
		"advertised.listeners":                             "PLAINTEXT://" + s.Addr(),
		"controller.listener.names":                        "CONTROLLER",
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                                         filepath.Join(s.dir, "data"),
		"auto.create.topics.enable":                        "false",
		"offsets.topic.num.partitions":                     "4",
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.num.partitions":             "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",
		"group.min.session.timeout.ms":                     "1000",
		"initial.broker.registration.timeout.ms":           "120000",
		"log.cleaner.dedupe.buffer.size":                   "16777216",
	}
	for i, l := range s.cfg.Listeners {
		settings["listeners"] += fmt.Sprintf(",L%d://%s", i, proc.Address(l.Port))
		settings["advertised.listeners"] += fmt.Sprintf(",L%d://%s", i, cmp.Or(l.Advertised, proc.Address(l.Port)))
		settings["listener.security.protocol.map"] += fmt.Sprintf(",L%d:%s", i, cmp.Or(l.Protocol, "PLAINTEXT"))
	}
	for k, v := range s.cfg.Settings {
		settings[k] = strings.ReplaceAll(v, "{dir}", s.dir)
	}
	var b []byte
	for k, v := range settings {
		b = fmt.Appendf(b, "%s=%s\n", k, v)
	}
	return b
}
