package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/admin"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/relay/health"
)

// adminConfig says where the daemon answers over HTTP.
type adminConfig struct {
	Listen string          `yaml:"listen" default:"127.0.0.1:9464" flag:"admin-listen" doc:"host:port for operators and Prometheus; another address than this machine's own needs TLS, and a token or client certificates; off: none"`
	Token  string          `yaml:"token" secret:"value" doc:"lets in who sends it, as a bearer token or as any user's password; at least 16 bytes"`
	TLS    *adminTLSConfig `yaml:"tls"`
	Probes string          `yaml:"probes" default:"none" doc:"host:port of /livez and /readyz alone, in plain text, for probes from elsewhere; they tell names of databases that are not ready, no more"`
}

type adminTLSConfig struct {
	CertFile     string `yaml:"cert_file" doc:"certificate (PEM), read at each connection as the other files are"`
	KeyFile      string `yaml:"key_file" doc:"its key (PEM)"`
	ClientCAFile string `yaml:"client_ca_file" doc:"authorities (PEM) of the client certificates that are let in"`
}

const (
	// defaultAdmin is where the admin listener is when nobody says: the port that
	// Prometheus knows OpenTelemetry by.
	defaultAdmin = "127.0.0.1:9464"
	adminOff     = "off"
	// adminDrain is how long requests under way may take at the end.
	adminDrain = 2 * time.Second
)

// openPaths need no token: they tell hardly more than that a process lives.
var openPaths = []string{"/livez", "/readyz"}

func (c adminConfig) config(log *slog.Logger) admin.Config {
	cfg := admin.Config{Listen: cmp.Or(c.Listen, defaultAdmin), Token: c.Token, Open: openPaths, Drain: adminDrain, Logger: log}
	if c.TLS != nil {
		cfg.CertFile, cfg.KeyFile, cfg.ClientCAFile = c.TLS.CertFile, c.TLS.KeyFile, c.TLS.ClientCAFile
	}
	return cfg
}

// adminKeys are the keys in the file of the fields that admin.Config names.
var adminKeys = strings.NewReplacer("ClientCAFile", "tls.client_ca_file", "CertFile", "tls.cert_file", "KeyFile", "tls.key_file", "Token", "token", "Listen", "listen")

// checkAdmin does not read the files: other commands than run do without.
func (v *validator) checkAdmin(c *adminConfig) {
	c.Token = v.optional("admin.token", c.Token)
	if c.TLS == nil {
		if _, there := v.origins["admin.tls"]; there {
			v.fail("admin.tls", "is empty: write cert_file and key_file, or leave it out")
		}
	} else {
		c.TLS.CertFile = v.optional("admin.tls.cert_file", c.TLS.CertFile)
		c.TLS.KeyFile = v.optional("admin.tls.key_file", c.TLS.KeyFile)
		c.TLS.ClientCAFile = v.optional("admin.tls.client_ca_file", c.TLS.ClientCAFile)
	}
	if c.Probes != "" {
		if _, _, err := net.SplitHostPort(c.Probes); err != nil {
			v.fail("admin.probes", "%q is not an address: use host:port, or :port for all interfaces", c.Probes)
		}
	}
	if c.Listen == adminOff {
		return
	}
	var field *event.FieldError
	if err := c.config(nil).Validate(); errors.As(err, &field) {
		key := adminKeys.Replace(strings.TrimPrefix(field.Field, "admin.Config."))
		v.fail("admin."+key, "%s", adminKeys.Replace(strings.TrimPrefix(field.Error(), field.Field+" ")))
	}
}

// checkAdminFiles reads them, as run does when it starts.
func (v *validator) checkAdminFiles(c *adminConfig) {
	if v.refused["admin.listen"] || c.Listen == adminOff || c.TLS == nil {
		return
	}
	if err := c.config(nil).CheckFiles(); err != nil {
		v.fail("admin.tls", "%v", err)
	}
}

// adminListeners are the daemon's HTTP servers.
type adminListeners struct {
	log     *slog.Logger
	probes  *http.Server   // nil: none
	routes  *http.ServeMux // of the guarded listener; nil: none
	page    *webPage       // nil: none
	stop    context.CancelFunc
	serving sync.WaitGroup
}

// startAdmin listens as configured, until it is closed: also while a daemon drains.
// The default address may be another relay's on this host: that is no reason not to
// publish.
func startAdmin(ctx context.Context, c adminConfig, metrics http.Handler, relays []health.Relay, log *slog.Logger) (*adminListeners, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &adminListeners{log: log, stop: cancel}
	probes := http.NewServeMux()
	probes.Handle("GET /livez", health.Live())
	probes.Handle("GET /readyz", health.Ready(relays...))
	all := http.NewServeMux()
	all.Handle("/", probes)
	all.Handle("GET /metrics", metrics)
	all.Handle("GET /progress", health.Progress(relays...))
	if c.Probes != "" {
		if err := a.serveProbes(ctx, c.Probes, probes); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	if c.Listen == adminOff {
		return a, nil
	}
	switch err := a.serve(ctx, c, all); {
	case err != nil && c.Listen == "":
		log.Warn("relay: no admin listener; set admin.listen to another address, or to off", "error", err)
	case err != nil:
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// serve opens the guarded listener.
func (a *adminListeners) serve(ctx context.Context, c adminConfig, all *http.ServeMux) error {
	s, err := admin.Listen(c.config(a.log), all)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	a.log.Info("relay: listening", "what", "admin.listen", "address", s.Addr().String())
	a.routes = all
	a.serving.Go(func() {
		if err := s.Run(ctx); err != nil {
			a.log.Error("relay: the admin listener ended", "what", "admin.listen", "error", err)
		}
	})
	return nil
}

// showPage adds the web page to the guarded listener, if there is one. It shows how a
// relay drains, so it does not end with ctx.
func (a *adminListeners) showPage(ctx context.Context, c config, path string, relays map[string]*relay.Relay) (err error) {
	if a.routes == nil {
		return nil
	}
	if a.page, err = startPage(context.WithoutCancel(ctx), c, path, relays, a.log); err == nil {
		a.page.mount(a.routes)
	}
	return err
}

// serveProbes opens the one that asks for nothing.
func (a *adminListeners) serveProbes(ctx context.Context, address string, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("admin.probes: %w", err)
	}
	a.probes = &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	a.log.Info("relay: listening", "what", "admin.probes", "address", l.Addr().String())
	a.serving.Go(func() {
		if err := a.probes.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("relay: the admin listener ended", "what", "admin.probes", "error", err)
		}
	})
	return nil
}

// Close lets requests end that are being answered, for up to two seconds.
func (a *adminListeners) Close() error {
	a.stop()
	if a.probes != nil {
		ctx, cancel := context.WithTimeout(context.Background(), adminDrain)
		defer cancel()
		if err := a.probes.Shutdown(ctx); err != nil {
			_ = a.probes.Close()
		}
	}
	a.serving.Wait()
	if a.page != nil {
		a.page.close() // after the requests that need its connections
	}
	return nil
}
