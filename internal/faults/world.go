package faults

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/planted"
	"github.com/outboxkit/outboxkit/internal/services/apicurio"
	"github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/services/proc"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
	"github.com/outboxkit/outboxkit/migrate"
)

// The processes.
var (
	serviceNames  = []string{"service-1", "service-2"}
	relayNames    = []string{"relay-1", "relay-2", "relay-3"}
	consumerNames = []string{"consumer-1", "consumer-2", "consumer-3"}
)

// setsOf are the tables of each cluster.
var setsOf = map[string][]migrate.Set{
	"shop":      {migrate.Outbox("")},
	"warehouse": {migrate.Outbox(""), migrate.Inbox("")},
}

// serversOf are the servers that each kind of process talks to.
var serversOf = map[string][]string{
	"service":  {"shop"},
	"relay":    {"shop", "warehouse", "kafka", "rabbitmq", "registry"},
	"consumer": {"warehouse", "kafka", "rabbitmq", "registry"},
}

//go:embed shop.sql
var shopSchema string

//go:embed warehouse.sql
var warehouseSchema string

// world is everything that a run has started.
type world struct {
	cfg     Config
	dir     string // logs, ledgers, binaries
	links   *links
	address map[string]string // of links, by name

	shop, warehouse *cluster
	kafka           *kafka.Server
	rabbitMQ        *rabbitmq.Server
	registry        *apicurio.Server
	processes       []*process

	mu        sync.Mutex
	faults    []history.Fault
	takeovers int               // how often a key may have come to another relay beside what the leases tell
	forgotten []time.Time       // asynchronous promotions
	garbage   map[string]string // brokers of injected messages, by id
	unsure    map[string]bool   // those that the broker has perhaps not
	late      *ledger           // the suite's own writes
}

// start builds and starts everything. The caller must close the world, also after
// an error.
func (w *world) start(ctx context.Context) error {
	w.links, w.address = newLinks(), map[string]string{}
	w.garbage, w.unsure = map[string]string{}, map[string]bool{}
	for kind, names := range w.names() {
		for _, name := range names {
			for _, server := range serversOf[kind] {
				addr, err := w.links.add(name, server)
				if err != nil {
					return err
				}
				w.address[linkName(name, server)] = addr
			}
		}
	}
	var err error
	if w.late, err = openLedger(w.ledger("late")); err != nil {
		return err
	}
	if err := w.build(ctx); err != nil {
		return err
	}
	if err := w.startServers(ctx); err != nil {
		return err
	}
	return w.startProcesses()
}

func (w *world) names() map[string][]string {
	return map[string][]string{"service": serviceNames, "relay": relayNames, "consumer": consumerNames}
}

// build compiles the relay daemon and the faults program, whose children the
// services and consumers are.
func (w *world) build(ctx context.Context) error {
	tags := "faults"
	if w.cfg.Plant != "" {
		tags += ",planted"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", w.dir+string(filepath.Separator),
		"github.com/outboxkit/outboxkit/cmd/relay", "github.com/outboxkit/outboxkit/internal/cmd/faults")
	cmd.Stdout, cmd.Stderr = w.cfg.Build, w.cfg.Build
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the processes: %w", err)
	}
	return nil
}

func (w *world) startServers(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() (err error) {
		w.shop, err = startCluster(ctx, "shop", w.links, shopSchema, w.firstTables("shop"))
		return err
	})
	g.Go(func() (err error) {
		w.warehouse, err = startCluster(ctx, "warehouse", w.links, warehouseSchema, w.firstTables("warehouse"))
		return err
	})
	g.Go(func() error { return w.startKafka(ctx, append(append([]string{}, relayNames...), consumerNames...)) })
	g.Go(func() (err error) {
		if w.rabbitMQ, err = rabbitmq.Start(ctx, rabbitmq.Config{}); err != nil {
			return err
		}
		return w.declareRabbitMQ()
	})
	g.Go(func() (err error) {
		w.registry, err = apicurio.Start(ctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return errors.Join(w.links.open("rabbitmq", w.rabbitMQ.Addr()), w.links.open("registry", w.registry.Addr()))
}

func (w *world) startProcesses() error {
	for _, name := range relayNames {
		config := filepath.Join(w.dir, name+".yaml")
		if err := os.WriteFile(config, w.relayConfig(name), 0o600); err != nil {
			return err
		}
		w.add("relay", name, func(start int) (proc.Spec, error) {
			r := w.release(start)
			return proc.Spec{Path: w.program(r, "relay"), Args: []string{"run", "--config", config}, Env: append(w.env(), relayEnv(r.mark(name))...)}, nil
		})
	}
	for _, name := range consumerNames {
		spec := consumerSpec{
			Name: name, Database: as("inbox_consumer", w.address[linkName(name, "warehouse")]), Kafka: w.address[linkName(name, "kafka")],
			RabbitMQ: w.amqp(name), Registry: w.registryURL(name),
		}
		w.add("consumer", name, func(start int) (proc.Spec, error) {
			s, r := spec, w.release(start)
			s.Name = r.mark(name)
			return w.childSpec(r, childSpec{Consumer: &s})
		})
	}
	for i, name := range serviceNames {
		spec := serviceSpec{
			Name: name, Database: as("outbox_writer", w.address[linkName(name, "shop")]),
			Seed: w.cfg.Seed + uint64(i), Rate: max(1, w.cfg.Rate/len(serviceNames)),
		}
		w.add("service", name, func(start int) (proc.Spec, error) {
			s, r := spec, w.release(start)
			s.Ledger = w.ledger(r.mark(name))
			// A process that is started again may find another clock.
			s.Start, s.Ahead = uint64(start), skew(w.cfg.Seed, i, start)
			return w.childSpec(r, childSpec{Service: &s})
		})
	}
	for _, p := range w.processes {
		if err := p.run(); err != nil {
			return err
		}
	}
	return nil
}

// skew is how far a service's clock is ahead: not at all at its first start, up to
// ten minutes wrong later.
func skew(seed uint64, service, start int) time.Duration {
	if start%2 == 0 {
		return 0
	}
	return time.Duration(seed%601+uint64(97*start+31*service))*time.Second%(20*time.Minute) - 10*time.Minute
}

func (w *world) add(kind, name string, spec func(start int) (proc.Spec, error)) {
	w.processes = append(w.processes, &process{name: name, kind: kind, log: filepath.Join(w.dir, name+".log"), spec: spec})
}

func (w *world) process(name string) *process {
	for _, p := range w.processes {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (w *world) ledger(name string) string { return filepath.Join(w.dir, name+".ledger") }

func (w *world) env() []string {
	return append(os.Environ(), planted.Env+"="+w.cfg.Plant)
}

// relayEnv has what the previous release must not find in relay.yaml, where it refuses
// keys that it does not know: all relays of this world are on one host, and the admin
// listener's default port is for one.
func relayEnv(name string) []string {
	return []string{"OUTBOXKIT_FAULTS_NAME=" + name, "OUTBOXKIT_ADMIN_LISTEN=127.0.0.1:0"}
}

func (w *world) childSpec(r release, s childSpec) (proc.Spec, error) {
	child, err := s.env()
	return proc.Spec{Path: w.program(r, "faults"), Env: append(w.env(), child)}, err
}

func (w *world) amqp(name string) string {
	return "amqp://guest:guest@" + w.address[linkName(name, "rabbitmq")] + "/"
}

func (w *world) registryURL(name string) string {
	return w.registry.URLAt(w.address[linkName(name, "registry")])
}

// lease is how long a frozen relay keeps its keys.
const (
	lease     = 4 * time.Second
	retention = 12 * time.Second
	slotTime  = retention / 6 // as the relay has it
)

// relayConfig serves both databases over both brokers. What a consumer derives goes
// over the broker that it came from. The previous release reads it too: it has only
// keys that both know.
func (w *world) relayConfig(name string) []byte {
	pipelines := func(indent, kafkaTopics, rabbitTopics string) string {
		return fmt.Sprintf(`%[1]s- name: kafka
%[1]s  filter: {topics: [%[2]s]}
%[1]s  kafka: {brokers: ["%[3]s"]}
%[1]s  wire: {format: confluent, registry: {url: "%[4]s", register: true}}
%[1]s- name: rabbitmq
%[1]s  filter: {topics: [%[5]s]}
%[1]s  rabbitmq: {url: "%[6]s", exchange: %[7]s, queues: %[8]d}
%[1]s  wire: {format: single-object}
`, indent, kafkaTopics, w.address[linkName(name, "kafka")], w.registryURL(name), rabbitTopics, w.amqp(name), exchange, queuesPerTopic)
	}
	return []byte(fmt.Sprintf("instance: %s\nlease: %s\nretention: %s\ndrain_timeout: %s\nlog: {level: info}\ndatabases:\n", name, lease, retention, drainChild) +
		fmt.Sprintf("  - name: shop\n    url: %q\n    pipelines:\n%s", as("outbox_relay", w.address[linkName(name, "shop")]), pipelines("      ", topicOrders, topicOrders)) +
		fmt.Sprintf("  - name: warehouse\n    url: %q\n    pipelines:\n%s", as("outbox_relay", w.address[linkName(name, "warehouse")]), pipelines("      ", topicReserved, topicBilled)))
}

// close ends everything.
func (w *world) close(ctx context.Context) error {
	var errs []error
	for _, p := range w.processes {
		p.mu.Lock()
		p.wanted, p.told = false, true
		now := p.now
		p.mu.Unlock()
		if now != nil {
			errs = append(errs, now.Kill())
		}
		p.keeper.Wait()
	}
	if w.late != nil {
		errs = append(errs, w.late.close())
	}
	if w.links != nil {
		w.links.close()
	}
	for _, c := range []*cluster{w.shop, w.warehouse} {
		if c != nil {
			errs = append(errs, c.close(ctx))
		}
	}
	if w.kafka != nil {
		errs = append(errs, w.kafka.Close(ctx))
	}
	if w.rabbitMQ != nil {
		errs = append(errs, w.rabbitMQ.Close(ctx))
	}
	if w.registry != nil {
		errs = append(errs, w.registry.Close(ctx))
	}
	return errors.Join(errs...)
}
