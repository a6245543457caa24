package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Server is a listener that is open. Run it, or the address stays taken.
type Server struct {
	cfg  Config
	http *http.Server
	l    net.Listener
}

// Listen opens the address. The error says what to change when it must not be opened
// like this: see [Config.Validate].
func Listen(cfg Config, handler http.Handler) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, http: &http.Server{
		Handler:           protect(cfg, handler),
		ReadHeaderTimeout: 5 * time.Second, // no ReadTimeout: it would end event streams
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug), // handshakes of port scanners
	}}
	var secure *tls.Config
	if cfg.CertFile != "" {
		f := &certificates{cfg: cfg}
		if _, err := f.read(); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		secure = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: f.forClient}
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, err // it names the address
	}
	if s.l = l; secure != nil {
		s.l = tls.NewListener(l, secure)
	}
	return s, nil
}

// CheckFiles reads the certificates, if there are any.
func (c Config) CheckFiles() error {
	if c.CertFile == "" {
		return nil
	}
	_, err := (&certificates{cfg: c}).read()
	return err
}

// Addr returns the address that is listened on.
func (s *Server) Addr() net.Addr { return s.l.Addr() }

// Run answers until ctx ends, then gives requests under way Config.Drain to end;
// their contexts end with ctx. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.l) }()
	select {
	case err := <-done:
		return fmt.Errorf("admin: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	err := s.http.Shutdown(last)
	if err != nil {
		err = s.http.Close() // they had their time
	}
	<-done
	return err
}

// certificates are read at each connection.
type certificates struct {
	cfg Config

	mu   sync.Mutex
	last *tls.Config
}

func (f *certificates) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	conf, err := f.read()
	if err == nil {
		return conf, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg.Logger.Error("admin: the certificates cannot be read; those read last are in use", "error", err)
	return f.last, nil
}

func (f *certificates) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.cfg.CertFile, f.cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", f.cfg.CertFile, f.cfg.KeyFile, err)
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"},
		SessionTicketsDisabled: true, // a resumed session would outlive a withdrawn authority
	}
	if f.cfg.ClientCAFile != "" {
		pem, err := os.ReadFile(f.cfg.ClientCAFile)
		if err != nil {
			return nil, err // it names the file
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate (a PEM file with BEGIN CERTIFICATE is needed)", f.cfg.ClientCAFile)
		}
		conf.ClientAuth = tls.VerifyClientCertIfGiven // the guard asks for it, but not for open paths
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = conf
	return conf, nil
}
