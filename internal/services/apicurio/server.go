package apicurio

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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

func artifact() maven.Artifact {
	return maven.Artifact{Name: "apicurio", POM: pom, Sums: sums, Unpack: true}
}

// Fetch brings the registry (about 140 MB) into the cache, once per machine.
func Fetch(ctx context.Context) error {
	_, err := artifact().Fetch(ctx)
	return err
}

// Available says why a server could not be started, nil if it can: Fetch has
// run and there is a Java.
func Available() error {
	if _, err := artifact().Dir(); err != nil {
		return err
	}
	_, err := maven.Java()
	return err
}

// Server is a running registry. What it stores ends with it.
type Server struct {
	port    int
	dir     string // holds the log
	process *proc.Process
}

// Start starts an empty registry on a free port. The caller must Close it.
func Start(ctx context.Context) (*Server, error) {
	home, err := artifact().Dir()
	if err != nil {
		return nil, err
	}
	java, err := maven.Java()
	if err != nil {
		return nil, err
	}
	jars, err := filepath.Glob(filepath.Join(home, "*-runner.jar"))
	if err != nil || len(jars) != 1 {
		return nil, fmt.Errorf("apicurio: %d runner jars in %s, want 1", len(jars), home)
	}
	s := &Server{}
	if s.port, err = proc.FreePort(); err != nil {
		return nil, err
	}
	if s.dir, err = proc.TempDir("apicurio", nil); err != nil {
		return nil, err
	}
	if err := s.start(ctx, java, jars[0]); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, java, jar string) error {
	p, err := proc.Start(proc.Spec{
		Name: "apicurio", Path: java, Dir: s.dir, LogFile: filepath.Join(s.dir, "log"),
		Args: []string{
			"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1",
			"-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port=" + strconv.Itoa(s.port),
			"-Dquarkus.log.level=WARN", "-Djava.io.tmpdir=" + s.dir,
			"-jar", jar,
		},
	})
	if err != nil {
		return err
	}
	s.process = p
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return p.WaitReady(ctx, s.ping)
}

func (s *Server) ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/subjects", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", req.URL, resp.Status)
	}
	return nil
}

// Close stops the registry.
func (s *Server) Close(ctx context.Context) error {
	var err error
	if s.process != nil {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		err = s.process.Stop(ctx, syscall.SIGTERM)
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// URL returns the base URL of Confluent's API, without a slash at the end.
func (s *Server) URL() string { return s.URLAt(s.Addr()) }

// URLAt is URL at another address, that of a proxy to this server.
func (s *Server) URLAt(addr string) string { return "http://" + addr + "/apis/ccompat/v7" }

// Addr returns the server's host:port.
func (s *Server) Addr() string { return proc.Address(s.port) }

// Pid returns the registry's process id.
func (s *Server) Pid() int { return s.process.Pid() }
