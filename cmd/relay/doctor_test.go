package main

import (
	"context"
	"encoding/json"
	"fmt"
	neturl "net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
)

// doctored runs the doctor and returns its findings and exit code.
func doctored(t *testing.T, path string, args ...string) ([]subjectFinding, int) {
	t.Helper()
	out, code := runRelay(t, append([]string{"doctor", "--config", path, "--json"}, args...)...)
	require.NotContains(t, out, "hunter2")
	var list []subjectFinding
	for line := range strings.Lines(out) {
		var f subjectFinding
		if json.Unmarshal([]byte(line), &f) == nil && f.Check != "" {
			list = append(list, f)
		}
	}
	require.NotEmpty(t, list, out)
	return list, code
}

// requireFound wants a finding of a subject's check with a verdict and texts.
func requireFound(t *testing.T, list []subjectFinding, subject, check, verdict string, texts ...string) {
	t.Helper()
	for _, f := range list {
		all := f.Subject == subject && f.Check == check && f.Verdict == verdict
		for _, text := range texts {
			all = all && strings.Contains(f.Detail+" "+f.Cure, text)
		}
		if all {
			return
		}
	}
	require.Failf(t, "no such finding", "%s %s %s %q in %+v", subject, check, verdict, texts, list)
}

// queued declares a queue with arguments.
func queued(t *testing.T, url, name string, durable bool, args amqp.Table) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	_, err = ch.QueueDeclare(name, durable, false, false, false, args)
	require.NoError(t, err)
}

// bound declares an exchange and binds a queue to it.
func bound(t *testing.T, url, exchange, queue string) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.ExchangeDeclare(exchange, amqp.ExchangeDirect, true, false, false, false, nil))
	require.NoError(t, ch.QueueBind(queue, "again", exchange, false, nil))
}

// unsafeQueues declares one for each thing that a queue may lack.
func unsafeQueues(t *testing.T, server *rabbitmq.Server, quorum amqp.Table) {
	t.Helper()
	url := server.URL()
	with := func(more amqp.Table) amqp.Table {
		args := amqp.Table{}
		for _, table := range []amqp.Table{quorum, more} {
			for k, v := range table {
				args[k] = v
			}
		}
		return args
	}
	queued(t, url, "classic", true, nil)
	queued(t, url, "fleeting", false, nil)
	queued(t, url, "shared", true, amqp.Table{"x-queue-type": "quorum"})
	queued(t, url, "limited", true, with(amqp.Table{"x-delivery-limit": int32(5)}))
	queued(t, url, "looping", true, with(amqp.Table{"x-delivery-limit": int32(5), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "looping"}))
	rounds := svctest.Unique("rounds")
	queued(t, url, "round", true, with(amqp.Table{"x-dead-letter-exchange": rounds}))
	queued(t, url, "lost", true, with(amqp.Table{"x-dead-letter-exchange": "no such exchange"}))
	bound(t, url, rounds, "round")
	queued(t, url, "short", true, with(amqp.Table{"x-max-length": int32(10)}))
	queued(t, url, "policed", true, quorum)
	out, err := server.Ctl(t.Context(), "set_policy", "--apply-to", "queues", "limits", "^policed$", `{"delivery-limit": 7}`)
	require.NoError(t, err, out)
}

// requireQueuesJudged wants a finding of each of them, and no other one that is well.
func requireQueuesJudged(t *testing.T, list []subjectFinding) {
	t.Helper()
	const subject, check = "pipeline rabbit", "queue settings"
	requireFound(t, list, subject, check, relay.VerdictOK, `"good"`)
	requireFound(t, list, subject, check, relay.VerdictWarning, `"classic" is a classic queue`)
	requireFound(t, list, subject, check, relay.VerdictFailure, `"fleeting" is not durable`)
	requireFound(t, list, subject, check, relay.VerdictWarning, `"shared" has no single active consumer`)
	requireFound(t, list, subject, check, relay.VerdictFailure, `"limited" drops a message after 5 deliveries`)
	requireFound(t, list, subject, check, relay.VerdictWarning, `"looping" dead-letters a message after 5 deliveries`)
	requireFound(t, list, subject, check, relay.VerdictFailure, `"looping" dead-letters to itself`)
	requireFound(t, list, subject, check, relay.VerdictFailure, `"round" dead-letters to exchange`, "to which it is bound itself")
	requireFound(t, list, subject, check, relay.VerdictFailure, `"lost" dead-letters to exchange "no such exchange", which does not exist`)
	requireFound(t, list, subject, check, relay.VerdictFailure, `"short" drops its oldest messages beyond a max-length of 10`)
	for _, f := range list {
		require.False(t, f.Check == check && f.Verdict == relay.VerdictOK && !strings.Contains(f.Detail, `"good"`), "%+v", f)
	}
}

// With a relay that runs, a consumer and a broker as they should be there is nothing
// to say, and then each queue that is not safe is named.
func TestDoctorHealthyAndQueues(t *testing.T) {
	t.Parallel()
	url := pgtest.Own(t).URL("postgres") // the shared one runs without fsync
	for _, set := range []string{"outbox", "inbox"} {
		out, code := runRelay(t, "migrate", "up", set, "--database-url", url)
		require.Zero(t, code, out)
	}
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO inbox.consumer (name, window_days) VALUES ('inventory', 7)`)
	require.NoError(t, err)
	server, management := svctest.ManagedRabbitMQ(t)
	config := func(topics string) string {
		return writeConfig(t, fmt.Sprintf(`database: {url: %q}
pipelines:
  - name: rabbit
    rabbitmq: {url: %q, management: %q}
    filter: {topics: [%s]}
inboxes: [{name: stock, url: %q}]
`, url, server.URL(), management, topics, url))
	}
	quorum := amqp.Table{"x-queue-type": "quorum", "x-single-active-consumer": true}
	queued(t, server.URL(), "good", true, quorum)
	path := config("good")
	list, code := doctored(t, path)
	require.Equal(t, 1, code, "%+v", list)
	requireFound(t, list, "database", "pipelines", relay.VerdictWarning, "has never run")

	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		var owned int
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM outbox.lease WHERE owner <> ''`).Scan(&owned))
		return owned == 64
	}, 30*time.Second, 20*time.Millisecond, log.String())
	out, code := runRelay(t, "doctor", "--config", path)
	require.Zero(t, code, out)
	t.Logf("\n%s", out)
	for _, never := range []string{"WARNING", "FAILURE", "UNKNOWN", "→", "\x1b"} {
		require.NotContains(t, out, never)
	}
	for _, check := range []string{"migrations", "grants", "identity", "log slots", "page plan", "queue settings", "dead letters", "clock"} {
		require.Contains(t, out, "  ok       "+check)
	}

	unsafeQueues(t, server, quorum)
	path = config("good, classic, fleeting, shared, limited, looping, round, lost, short, policed, missing")
	require.Eventually(t, func() bool { // the API shows policies with its statistics
		list, code = doctored(t, path)
		for _, f := range list {
			if strings.Contains(f.Detail, "after 7 deliveries") {
				return true
			}
		}
		return false
	}, 30*time.Second, 100*time.Millisecond)
	require.Equal(t, 3, code)
	requireQueuesJudged(t, list)
	requireFound(t, list, "pipeline rabbit", "queues", relay.VerdictFailure, `queue "missing" cannot be used`)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
}

// A topic as it should not be on a real cluster, against a consumer that remembers for
// a day.
func TestDoctorOnKafka(t *testing.T) {
	t.Parallel()
	addresses := svctest.RealKafka(t)
	topic, missing := svctest.Unique("loose"), svctest.Unique("missing")
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(addresses, conf)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	require.NoError(t, admin.CreateTopic(topic, &sarama.TopicDetail{
		NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: map[string]*string{"unclean.leader.election.enable": new("true")},
	}, false))
	require.Eventually(t, func() bool {
		found, err := admin.DescribeTopics([]string{topic})
		return err == nil && len(found) == 1 && len(found[0].Partitions) == 1 && found[0].Partitions[0].Leader >= 0 && len(found[0].Partitions[0].Isr) == 1
	}, 30*time.Second, 10*time.Millisecond)
	url, conn := outboxAs(t)
	consumers := handledBy(t, "0198f0c4-7a1b-7c3d-8e4f-5a6b7c8d9e0f", "inventory")
	other, err := pgx.Connect(t.Context(), consumers)
	require.NoError(t, err)
	defer other.Close(t.Context())
	_, err = other.Exec(t.Context(), `UPDATE inbox.consumer SET window_days = 1 WHERE name = 'inventory'`)
	require.NoError(t, err)
	writeEvent(t, conn, "mapped", "k")
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: [%q]}
    filter: {topics: [mapped, %s]}
    topics: {mapped: %s}
    wire: {format: confluent, registry: {url: 'http://127.0.0.1:1'}}
  - name: away
    kafka: {brokers: ['127.0.0.1:1'], username: u, password: hunter2}
inboxes: [{name: stock, url: %q}, {name: bare, url: %q}, {name: unset, url: '${OUTBOXKIT_NO_SUCH}'}]
`, url, addresses[0], missing, topic, consumers, pgtest.URL(t)))
	list, code := doctored(t, path)
	require.Equal(t, 3, code)
	requireFound(t, list, "pipeline kafka", "topics", relay.VerdictFailure, topic, "unclean.leader.election.enable=true")
	requireFound(t, list, "pipeline kafka", "topics", relay.VerdictWarning, topic, "has one copy")
	requireFound(t, list, "pipeline kafka", "topics", relay.VerdictFailure, missing, "cannot be used")
	requireFound(t, list, "pipeline kafka", "topics", relay.VerdictWarning, topic, "keeps messages for 7 days", "inventory in inbox stock (1 days)")
	requireFound(t, list, "pipeline kafka", "registry", relay.VerdictFailure, "does not answer")
	requireFound(t, list, "pipeline away", "kafka", relay.VerdictFailure, "no broker answers")
	requireFound(t, list, "inbox bare", "migrations", relay.VerdictFailure, "relay migrate up inbox")
	requireFound(t, list, "inbox unset", "configuration", relay.VerdictUnknown, "OUTBOXKIT_NO_SUCH is not set")
	requireFound(t, list, "database", "pipelines", relay.VerdictWarning, "pipeline kafka of the configuration has never run")
}

// A registry that answers, and its clock. TestDoctorOnKafka has one that is away.
func TestDoctorOnARegistry(t *testing.T) {
	t.Parallel()
	url, _ := outboxAs(t)
	list, _ := doctored(t, writeConfig(t, fmt.Sprintf(`database: {url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
    wire: {format: confluent, registry: {url: %q}}
`, url, svctest.Registry(t))))
	requireFound(t, list, "pipeline kafka", "registry", relay.VerdictOK, "answers")
	requireFound(t, list, "pipeline kafka", "clock", relay.VerdictOK, "the registry's", "to within 1")
}

// What else can be wrong with a consumer's database.
func TestDoctorOnInboxes(t *testing.T) {
	t.Parallel()
	url, pool := consumerDatabase(t)
	path := writeConfig(t, fmt.Sprintf(`database: {url: 'postgres://nobody:hunter2@127.0.0.1:1/none'}
pipelines: [{name: x, kafka: {brokers: ['127.0.0.1:1']}}]
inboxes: [{name: stock, url: %q}]
`, url))
	list, code := doctored(t, path)
	require.Equal(t, 3, code)
	requireFound(t, list, "database", "postgres", relay.VerdictFailure, "does not answer")
	requireFound(t, list, "inbox stock", "grants", relay.VerdictOK)
	requireFound(t, list, "inbox stock", "dead letters", relay.VerdictWarning, "4 events of consumer inventory are dead, 1 wait behind them")

	role := "narrow_" + strings.ReplaceAll(svctest.Unique("role"), "-", "_")
	for _, statement := range []string{
		`CREATE ROLE ` + role + ` LOGIN`, `GRANT USAGE ON SCHEMA inbox TO ` + role, `GRANT SELECT ON ALL TABLES IN SCHEMA inbox TO ` + role,
	} {
		_, err := pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		require.NoError(t, err)
		defer conn.Close(context.Background())
		_, err = conn.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(t, err)
	})
	narrow, err := neturl.Parse(url)
	require.NoError(t, err)
	narrow.User = neturl.User(role)
	list, _ = doctored(t, writeConfig(t, fmt.Sprintf(`database: {url: 'postgres://127.0.0.1:1/none'}
pipelines: [{name: x, kafka: {brokers: ['127.0.0.1:1']}}]
inboxes: [{name: stock, url: %q}]
`, narrow)))
	requireFound(t, list, "inbox stock", "grants", relay.VerdictFailure, "GRANT INSERT ON TABLE inbox.seen_3", "GRANT EXECUTE ON FUNCTION inbox.forget_seen(integer)", role)
}
