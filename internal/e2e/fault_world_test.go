//go:build faults

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// faultUnits is the number of partitions or queues of a topic.
const faultUnits = 8

// faultBroker is a topic of one broker, ready to be used.
type faultBroker struct {
	topic    string
	from     []string // topics or queues of a consumer
	kafka    []string // either these
	rabbitMQ string   // or this
}

func kafkaTopic(t *testing.T, addresses []string) faultBroker {
	t.Helper()
	topic := createTopic(t, addresses, faultUnits)
	return faultBroker{topic: topic, from: []string{topic}, kafka: addresses}
}

func rabbitTopic(_ *testing.T, url string) faultBroker {
	topic := svctest.Unique("orders")
	return faultBroker{topic: topic, from: rabbitmq.QueueNames(topic, faultUnits), rabbitMQ: url}
}

// overBoth runs a test over both brokers, at the same time.
func overBoth(t *testing.T, test func(t *testing.T, b faultBroker)) {
	t.Parallel()
	t.Run("Kafka", func(t *testing.T) {
		t.Parallel()
		test(t, kafkaTopic(t, svctest.RealKafka(t)))
	})
	t.Run("RabbitMQ", func(t *testing.T) {
		t.Parallel()
		test(t, rabbitTopic(t, svctest.RabbitMQ(t)))
	})
}

func (b faultBroker) publisher() brokers.Publisher {
	if b.rabbitMQ != "" {
		return rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: b.rabbitMQ, Queues: faultUnits, Declare: true})
	}
	return kafka.NewPublisher(kafka.Config{Brokers: b.kafka})
}

// faultWorld is a shop that writes orders, its relay, and a consumer's database.
type faultWorld struct {
	*testing.T
	broker      faultBroker
	shopURL     string
	shop        *pgxpool.Pool
	consumerURL string // for the consumer's role
	consumer    *pgxpool.Pool
	members     []*member
}

func newFaultWorld(t *testing.T, b faultBroker) *faultWorld {
	t.Helper()
	consumerURL, consumer := consumerDatabase(t)
	return newFaultWorldAt(t, b, consumerURL, consumer, b.publisher())
}

// newFaultWorldAt has a relay that publishes through to.
func newFaultWorldAt(t *testing.T, b faultBroker, consumerURL string, consumer *pgxpool.Pool, to brokers.Publisher) *faultWorld {
	t.Helper()
	w := &faultWorld{T: t, broker: b, consumerURL: as(t, consumerURL, "inbox_consumer"), consumer: consumer}
	_, err := consumer.Exec(t.Context(), `ALTER TABLE effects ADD member text NOT NULL, ADD tx xid8 NOT NULL DEFAULT pg_current_xact_id()`)
	require.NoError(t, err)
	w.shopURL, w.shop = producerDatabase(t)
	_, err = w.shop.Exec(t.Context(), `ALTER TABLE orders ADD event_id text NOT NULL, ADD kind text NOT NULL`)
	require.NoError(t, err)
	t.Cleanup(func() { _ = to.Close() })
	pool, err := pgxpool.New(context.Background(), as(t, w.shopURL, "outbox_relay"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	runPipeline(t, pool, relay.Pipeline{Name: "faults", To: to, Wire: avro.SingleObject(orderPlacedType(b.topic).Codec.Schema())})
	return w
}

// member is a consumer process, with its own way to the database.
type member struct {
	*process
	spec memberSpec
	gate *gate
}

// join starts a member. What spec does not say is the world's.
func (w *faultWorld) join(spec memberSpec) *member {
	w.Helper()
	g := newGate(w, w.consumerURL)
	spec.Database, spec.Topic, spec.Kafka, spec.RabbitMQ = g.url, w.broker.topic, w.broker.kafka, w.broker.rabbitMQ
	if spec.From == nil {
		spec.From = w.broker.from
	}
	specJSON, err := json.Marshal(spec)
	require.NoError(w, err)
	self, err := os.Executable()
	require.NoError(w, err)
	p := start(w.T, spec.Name, func() *exec.Cmd {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envMember+"="+string(specJSON))
		return cmd
	})
	m := &member{process: p, spec: spec, gate: g}
	w.members = append(w.members, m)
	return m
}

// leave is SIGTERM: it returns how long the member took to end, cleanly.
func (m *member) leave() time.Duration {
	m.t.Helper()
	began := time.Now()
	require.NoError(m.t, m.signal(syscall.SIGTERM), "%s must end cleanly", m.name)
	return time.Since(began)
}

// returned is how long Run took to return after SIGTERM.
func (m *member) returned() time.Duration {
	m.t.Helper()
	_, line, found := strings.Cut(m.output(), returnedPrefix)
	require.True(m.t, found)
	line, _, _ = strings.Cut(line, "\n")
	ms, err := strconv.Atoi(line)
	require.NoError(m.t, err)
	return time.Duration(ms) * time.Millisecond
}

// stats are those that it printed last.
func (m *member) stats() (s inbox.Stats) {
	m.t.Helper()
	all := m.output()
	i := strings.LastIndex(all, statsPrefix)
	require.GreaterOrEqual(m.t, i, 0, "%s has printed no statistics", m.name)
	line, _, _ := strings.Cut(all[i+len(statsPrefix):], "\n")
	require.NoError(m.t, json.Unmarshal([]byte(line), &s))
	return s
}

// statsNow asks for them. A process that has just begun does not listen yet: the
// signal would end it.
func (m *member) statsNow() inbox.Stats {
	m.t.Helper()
	printed := strings.Count(m.output(), statsPrefix)
	require.Eventually(m.t, func() bool {
		if strings.Count(m.output(), listening) == m.startsSoFar() {
			m.send(syscall.SIGUSR1)
		}
		_, last, _ := strings.Cut(m.output(), statsPrefix)
		return strings.Count(m.output(), statsPrefix) > printed && strings.HasSuffix(last, "\n")
	}, 30*time.Second, 20*time.Millisecond)
	return m.stats()
}

// number answers a query of the consumer's database.
func (w *faultWorld) number(sql string, args ...any) (n int) {
	w.Helper()
	require.NoError(w, w.consumer.QueryRow(context.Background(), sql, args...).Scan(&n))
	return n
}

func (w *faultWorld) effects() int { return w.number(`SELECT count(*) FROM effects`) }

func (w *faultWorld) effectsBy(name string) int {
	return w.number(`SELECT count(*) FROM effects WHERE member = $1`, name)
}

// inBatches counts the effects that shared a transaction with others.
func (w *faultWorld) inBatches() int {
	return w.number(`SELECT coalesce(sum(n), 0) FROM (SELECT count(*) n FROM effects GROUP BY tx) t WHERE n > 1`)
}

func (w *faultWorld) hasEffect(event string) bool {
	return w.number(`SELECT count(*) FROM effects WHERE event_id = $1`, event) > 0
}

// eventually waits for a condition that load brings about.
func (w *faultWorld) eventually(cond func() bool, what string, args ...any) {
	w.Helper()
	require.Eventuallyf(w, cond, time.Minute, 10*time.Millisecond, what, args...)
}

// deadSQL counts the dead letters that nobody has dealt with.
const (
	undealt = `state NOT IN ('redriven', 'discarded')`
	deadSQL = `SELECT count(*) FROM inbox.dead WHERE ` + undealt
)

// judge waits until every committed order is accounted for, has the members that
// run leave, and lets the checker judge. It returns the dead letters.
func (w *faultWorld) judge(blocking bool) []history.Write {
	w.Helper()
	written := writes(w.T, w.shop)
	// If not, the checker says which.
	const moving = `SELECT count(*) FROM inbox.dead WHERE state = 'moving'`
	assert.Eventually(w, func() bool { return w.effects()+w.number(deadSQL) >= len(written) && w.number(moving) == 0 }, 90*time.Second, 50*time.Millisecond,
		"every committed order takes effect or dies in the end")
	for _, m := range w.members {
		if m.runs() {
			m.leave()
		}
	}
	dead := w.dead()
	if report := history.Report(history.CheckWithDead(written, effectsOf(w.T, w.consumer), dead, blocking)); report != "" {
		w.Error(report)
	}
	w.Logf("%d orders committed, %d effects, %d dead letters", len(written), w.effects(), len(dead))
	return dead
}

// dead are the orders that are dead letters. A dead letter does not say which
// order it is: the shop knows the event's id.
func (w *faultWorld) dead() (dead []history.Write) {
	w.Helper()
	rows, err := w.consumer.Query(w.Context(), `SELECT id FROM inbox.dead WHERE `+undealt)
	require.NoError(w, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(w, err)
	rows, err = w.shop.Query(w.Context(), `SELECT user_id, n FROM unnest($1::text[]) d(id) JOIN orders ON event_id = id`, ids)
	require.NoError(w, err)
	dead, err = pgx.CollectRows(rows, pgx.RowToStructByPos[history.Write])
	require.NoError(w, err)
	require.Len(w, dead, len(ids), "each dead letter is of an order")
	return dead
}
