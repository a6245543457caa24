package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// links are the proxies between processes and servers, one for each pair.
type links struct {
	server *toxiproxy.ApiServer
	byName map[string]*link
}

// link is the only way from one process to one server.
type link struct {
	name   string
	server *toxiproxy.ApiServer
	mu     sync.Mutex
	proxy  *toxiproxy.Proxy
}

func newLinks() *links {
	return &links{
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop()),
		byName: map[string]*link{},
	}
}

func linkName(from, to string) string { return from + ">" + to }

// nowhere is where nobody listens.
const nowhere = "127.0.0.1:1"

// add makes a link that leads nowhere yet and returns its address. It listens at
// once: the port could be given to somebody else meanwhile.
func (l *links) add(from, to string) (string, error) {
	name := linkName(from, to)
	for {
		port, err := proc.FreePort()
		if err != nil {
			return "", err
		}
		k := &link{name: name, server: l.server, proxy: toxiproxy.NewProxy(l.server, name, proc.Address(port), nowhere)}
		if k.proxy.Start() == nil {
			l.byName[name] = k
			return k.proxy.Listen, nil
		}
	}
}

// open forwards all links to a server, from now on to upstream.
func (l *links) open(to, upstream string) error {
	for _, k := range l.byName {
		if suffix := ">" + to; len(k.name) > len(suffix) && k.name[len(k.name)-len(suffix):] == suffix {
			if err := k.retarget(upstream); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *links) close() {
	for _, k := range l.byName {
		k.mu.Lock()
		k.proxy.Stop()
		k.mu.Unlock()
	}
}

// retarget cuts what there is and forwards to another server.
func (k *link) retarget(upstream string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proxy.Stop()
	k.proxy.Upstream = upstream
	return k.start()
}

// start begins to listen. The port may be taken for a moment by its own past.
func (k *link) start() error {
	var err error
	for range 250 {
		if err = k.proxy.Start(); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("link %s: %w", k.name, err)
}

// toxic is one effect of the proxy on a direction, by the library's names.
type toxic struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Toxicity   float32        `json:"toxicity"`
	Attributes map[string]any `json:"attributes"`
}

// suffer applies toxics for d and then opens the link anew: connections that have
// lost bytes must not go on.
func (k *link) suffer(ctx context.Context, d time.Duration, toxics ...toxic) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	added := make(chan error, 1)
	proxy := k.proxy
	go func() { added <- add(proxy, toxics) }()
	select {
	case err := <-added:
		if err != nil {
			return fmt.Errorf("link %s: %w", k.name, err)
		}
	case <-time.After(2 * time.Second): // a connection that nobody reads holds it up: new ones only
		k.renew()
		if err := errors.Join(add(k.proxy, toxics), k.start()); err != nil {
			return err
		}
	}
	pause(ctx, d)
	k.renew()
	return k.start()
}

func add(p *toxiproxy.Proxy, toxics []toxic) error {
	for _, t := range toxics {
		text, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if _, err := p.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return nil
}

// renew stops the proxy and makes another one in its place: the library's removal
// of toxics waits for connections, and can do so for ever.
func (k *link) renew() {
	k.proxy.Stop()
	k.proxy = toxiproxy.NewProxy(k.server, k.name, k.proxy.Listen, k.proxy.Upstream)
}

// cut refuses connections for d, after it has closed all there are.
func (k *link) cut(ctx context.Context, d time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proxy.Stop()
	pause(ctx, d)
	return k.start()
}

func (k *link) delay(ctx context.Context, d time.Duration, ms int) error {
	attributes := map[string]any{"latency": ms, "jitter": ms / 2}
	return k.suffer(ctx, d,
		toxic{Name: "delay-up", Type: "latency", Stream: "upstream", Toxicity: 1, Attributes: attributes},
		toxic{Name: "delay-down", Type: "latency", Stream: "downstream", Toxicity: 1, Attributes: attributes})
}

// halfOpen lets connections stand, new ones too, and no byte through. The zero
// timeout is the library's "never close".
func (k *link) halfOpen(ctx context.Context, d time.Duration) error {
	attributes := map[string]any{"timeout": 0}
	return k.suffer(ctx, d,
		toxic{Name: "silence-up", Type: "timeout", Stream: "upstream", Toxicity: 1, Attributes: attributes},
		toxic{Name: "silence-down", Type: "timeout", Stream: "downstream", Toxicity: 1, Attributes: attributes})
}

// truncate ends every stream in the given direction after so many bytes, in the
// middle of whatever is being said.
func (k *link) truncate(ctx context.Context, d time.Duration, direction string, bytes int) error {
	return k.suffer(ctx, d, toxic{Name: "truncate", Type: "limit_data", Stream: direction, Toxicity: 1, Attributes: map[string]any{"bytes": bytes}})
}
