package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/relay"
)

// As an operator does it, on real brokers: the daemon publishes to both, then part
// of it is replayed to where it was and all of it from one broker's pipeline to the
// other's, killed on its way and resumed.
func TestReplayCommandOnRealBrokers(t *testing.T) {
	const events = 120
	amqpURL, kafkaBrokers := svctest.RabbitMQ(t), svctest.RealKafka(t)
	databaseURL, shop := database(t, migrate.Outbox(""))
	_, err := shop.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
SELECT (ARRAY['orders', 'bills'])[1 + g % 2], 'k' || g % 5, (ARRAY['a', 'b', 'c'])[1 + g % 3], '/shop', convert_to(g::text, 'UTF8') FROM generate_series(0, $1 - 1) g`, events)
	require.NoError(t, err)
	_, err = shop.Exec(t.Context(), `UPDATE outbox.event SET created_at = '2026-01-01T00:00:00Z'::timestamptz + convert_from(payload, 'UTF8')::int * interval '1 minute'`)
	require.NoError(t, err)
	orders, bills := createTopic(t, kafkaBrokers, 2), createTopic(t, kafkaBrokers, 2)
	prefix := svctest.Unique("replay")
	binary, config := buildRelay(t), filepath.Join(t.TempDir(), "relay.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `database: {url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: [%q]}
    topics: {orders: %q, bills: %q}
  - name: rabbitmq
    rabbitmq: {url: %q, declare: true}
    topics: {"*": "%s.{topic}"}
`, as(t, databaseURL, "outbox_relay"), kafkaBrokers[0], orders, bills, amqpURL, prefix), 0o600))

	daemon := start(t, "relay", func() *exec.Cmd { return exec.Command(binary, "run", "--config", config) })
	onKafka := receive(t, kafka.NewSubscriber(kafka.Config{Brokers: kafkaBrokers, Group: prefix}, orders, bills))
	onRabbit := receive(t, rabbitmq.NewSubscriber(rabbitmq.SubscriberConfig{URL: amqpURL, Declare: true}, prefix+".orders", prefix+".bills"))
	require.Eventually(t, func() bool { return len(onKafka.marked("")) == events && len(onRabbit.marked("")) == events }, time.Minute, 10*time.Millisecond)
	require.NoError(t, daemon.signal(syscall.SIGTERM))

	replay := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), binary, append([]string{"replay", "--config", config, "--reason", "a test"}, args...)...)
	}
	out, err := replay("--pipeline", "kafka", "--json", "--from", "2026-01-01T00:20:00Z", "--until", "2026-01-01T01:40:00Z",
		"--key", "k1", "--key", "k3", "--type", "a", "--type", "c", "--topic", "orders").Output()
	require.NoError(t, err)
	id := lastJSON(t, out).ID
	var want []int
	for i := 20; i < 100; i++ {
		if (i%5 == 1 || i%5 == 3) && i%3 != 1 && i%2 == 0 {
			want = append(want, i)
		}
	}
	require.Eventually(t, func() bool { return len(onKafka.marked(id)) >= len(want) }, 30*time.Second, 10*time.Millisecond)
	requireInOrder(t, onKafka.marked(id), want)
	require.Equal(t, orders, onKafka.marked(id)[0].Topic)

	other := killedReplay(t, shop, replay("--pipeline", "kafka", "--to", "rabbitmq", "--rate", "40", "--json"))
	require.Less(t, len(onRabbit.marked(other)), events)
	screen := onTerminal(t, exec.CommandContext(t.Context(), binary, "replay", "--config", config, "--resume", other, "--rate", "40"))
	require.Contains(t, screen, "\r\x1b[K", "a line that changes")
	require.Contains(t, screen, "% of the log, about")
	require.Contains(t, screen, "replay "+other+" done: 120 events published")
	all := make([]int, events)
	for i := range all {
		all[i] = i
	}
	require.Eventually(t, func() bool { return len(numbers(onRabbit.marked(other))) >= events }, 30*time.Second, 10*time.Millisecond)
	requireInOrder(t, onRabbit.marked(other), all)
	require.LessOrEqual(t, len(onRabbit.marked(other)), events+20, "what is repeated is bounded")
	require.Len(t, onKafka.marked(""), events, "the daemon's own are not marked, and came once")
}

// killedReplay runs a slow replay to RabbitMQ until SIGKILL finds it on its way, and
// returns its id.
func killedReplay(t *testing.T, shop *pgxpool.Pool, cmd *exec.Cmd) (id string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		var n int
		err := shop.QueryRow(t.Context(), `SELECT id::text, published FROM outbox.replay WHERE destination = 'rabbitmq'`).Scan(&id, &n)
		return err == nil && n >= 50
	}, 30*time.Second, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.NotEmpty(t, out.String())
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var p relay.ReplayProgress
		require.NoError(t, json.Unmarshal(lines.Bytes(), &p), "progress, an object a line")
		require.Equal(t, id, p.ID)
	}
	return id
}

// numbers are the payloads of first deliveries, in ascending order.
func numbers(list []brokers.Message) []int {
	var all []int
	for _, m := range list {
		n, _ := strconv.Atoi(string(m.Payload))
		all = append(all, n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// requireInOrder: these and no others, and first deliveries of a topic's key ascend.
func requireInOrder(t *testing.T, list []brokers.Message, want []int) {
	t.Helper()
	require.Equal(t, want, numbers(list))
	last, seen := map[string]int{}, map[int]bool{}
	for _, m := range list {
		n, err := strconv.Atoi(string(m.Payload))
		require.NoError(t, err)
		if seen[n] {
			continue
		}
		seen[n] = true
		lane := m.Topic + " " + m.Key
		if before, ok := last[lane]; ok {
			require.Greater(t, n, before, "order of %s", lane)
		}
		last[lane] = n
	}
}

func lastJSON(t *testing.T, out []byte) (r relay.ReplayResult) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
	return r
}

// received is what a subscriber has delivered, in order.
type received struct {
	mu   sync.Mutex
	list []brokers.Message
}

// marked are those of a replay, with "" those of none.
func (r *received) marked(replay string) (list []brokers.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.list {
		if m.Headers[relay.HeaderReplayID] == replay {
			list = append(list, m)
		}
	}
	return list
}

func receive(t *testing.T, from brokers.Subscriber) *received {
	t.Helper()
	r := &received{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- from.Subscribe(ctx, func(_ context.Context, d *brokers.Delivery) {
			r.mu.Lock()
			r.list = append(r.list, d.Message)
			r.mu.Unlock()
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, from.Close())
	})
	return r
}
