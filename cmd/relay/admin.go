package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/relay/health"
)

// adminConfig says where the daemon answers over HTTP.
type adminConfig struct {
	Listen string `yaml:"listen"`
	Probes string `yaml:"probes"`
}

const (
	// defaultAdmin is where the admin listener is when nobody says: the port that
	// Prometheus knows OpenTelemetry by.
	defaultAdmin = "127.0.0.1:9464"
	adminOff     = "off"
)

func (v *validator) checkAdmin(c *adminConfig) {
	if c.Listen != "" && c.Listen != adminOff {
		switch host, _, err := net.SplitHostPort(c.Listen); {
		case err != nil:
			v.fail("admin.listen", "%q is not an address: use host:port, for example %s, or %s", c.Listen, defaultAdmin, adminOff)
		case !loopback(host):
			v.fail("admin.listen", "%q is not on loopback: what it shows is for this host's operators; for probes and Prometheus use admin.probes", c.Listen)
		}
	}
	if c.Probes != "" {
		if _, _, err := net.SplitHostPort(c.Probes); err != nil {
			v.fail("admin.probes", "%q is not an address: use host:port, or :port for all interfaces", c.Probes)
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// admin is the daemon's HTTP servers.
type admin struct {
	log     *slog.Logger
	servers []*http.Server
	serving sync.WaitGroup
}

// startAdmin listens as configured. The default address may be another relay's on
// this host: that is no reason not to publish.
func startAdmin(ctx context.Context, c adminConfig, metrics http.Handler, relays []health.Relay, log *slog.Logger) (*admin, error) {
	a := &admin{log: log}
	probes := http.NewServeMux()
	probes.Handle("GET /livez", health.Live())
	probes.Handle("GET /readyz", health.Ready(relays...))
	probes.Handle("GET /metrics", metrics)
	all := http.NewServeMux()
	all.Handle("/", probes)
	all.Handle("GET /progress", health.Progress(relays...))
	if c.Probes != "" {
		if err := a.serve(ctx, "admin.probes", c.Probes, probes); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	switch c.Listen {
	case adminOff:
	case "":
		if err := a.serve(ctx, "admin.listen", defaultAdmin, all); err != nil {
			log.Warn("relay: no admin listener; set admin.listen to another address, or to off", "error", err)
		}
	default:
		if err := a.serve(ctx, "admin.listen", c.Listen, all); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	return a, nil
}

func (a *admin) serve(ctx context.Context, field, address string, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	a.servers = append(a.servers, s)
	a.log.Info("relay: listening", "what", field, "address", l.Addr().String())
	a.serving.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("relay: the admin listener ended", "what", field, "error", err)
		}
	})
	return nil
}

// Close lets requests end that are being answered, for up to two seconds.
func (a *admin) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, s := range a.servers {
		if err := s.Shutdown(ctx); err != nil {
			_ = s.Close()
		}
	}
	a.serving.Wait()
	return nil
}
