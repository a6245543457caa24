package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxkit/outboxkit/dedup"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/relay"
)

// writeEvent inserts an event with a payload that must not be shown, and returns its id.
func writeEvent(t *testing.T, conn *pgx.Conn, topic, key string) (id string) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload)
VALUES ($1, $2, 'placed', '/shop', 'hunter2') RETURNING event_id::text`, topic, key).Scan(&id))
	return id
}

// handledBy is the URL of a consumer's database in which consumers have handled an event.
func handledBy(t *testing.T, id string, consumers ...string) string {
	t.Helper()
	url := pgtest.URL(t)
	out, code := runRelay(t, "migrate", "up", "inbox", "--database-url", url)
	require.Zero(t, code, out)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for _, c := range consumers {
		store, err := dedup.NewPostgres(t.Context(), pool, dedup.Config{Consumer: c})
		require.NoError(t, err)
		require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := store.Claim(t.Context(), tx, dedup.Key{Source: "/shop", ID: id})
			return err
		}))
	}
	_, err = pool.Exec(t.Context(), `INSERT INTO inbox.consumer (name, window_days) VALUES ('billing', 7)`)
	require.NoError(t, err)
	return url
}

// The story of an event that was published and handled, for people and as JSON.
func TestExplainCommand(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	id := writeEvent(t, conn, "orders", "k")
	consumers := handledBy(t, id, "inventory")
	broker := svctest.FakeKafka(t, kfake.SeedTopics(1, "shop.orders")).ListenAddrs()[0]
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: [%q]}
    topics: {orders: 'shop.{topic}'}
  - name: audit
    kafka: {brokers: [%q]}
    filter: {types: [nothing]}
inboxes:
  - {name: stock, url: %q}
  - {name: gone, url: 'postgres://nobody@127.0.0.1:1/none'}
`, url, broker, broker, consumers))
	out, code := runRelay(t, "explain", id, "--config", path)
	require.Equal(t, 1, code, "an inbox does not answer: %s", out)
	require.Contains(t, out, "UNKNOWN to the database")

	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	var story databaseStory
	require.Eventually(t, func() bool {
		out, _ := runRelay(t, "explain", id, "--config", path, "--json")
		story = databaseStory{}
		line, _, _ := strings.Cut(out, "\n")
		err := json.Unmarshal([]byte(line), &story)
		return err == nil && len(story.Events) == 1 && len(story.Events[0].Pipelines) == 2 && story.Events[0].Pipelines[1].State == relay.StoryPublished
	}, 30*time.Second, 50*time.Millisecond, log.String())
	require.Equal(t, relay.StoryFiltered, story.Events[0].Pipelines[0].State)
	require.Equal(t, "shop.orders", story.Events[0].Pipelines[1].Destination)
	states := map[string]string{}
	for _, c := range story.Consumers {
		states[c.Inbox+" "+c.Consumer] = c.State
	}
	require.Equal(t, map[string]string{"stock inventory": "handled", "stock billing": "not_seen", "gone ": ""}, states)

	out, code = runRelay(t, "explain", id, "--config", path)
	require.Equal(t, 1, code, out)
	t.Logf("\n%s", out)
	for _, want := range []string{
		`placed of /shop, topic "orders", key "k"`, `PUBLISHED to topic "shop.orders" of Kafka ` + broker, "FILTERED", "HANDLED (inbox stock)", "NOT SEEN (inbox stock)",
		"gone", "NOT ASKED", "1 of 3 did not answer",
	} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "hunter2")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
}

func TestExplainCommandFindsNothing(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	other, _ := outboxAs(t)
	id := writeEvent(t, conn, "orders", "k")
	path := writeConfig(t, fmt.Sprintf(`databases: [{name: shop, url: %q}, {name: other, url: %q}]
pipelines: [{name: x, kafka: {brokers: ['127.0.0.1:1']}}]
`, url, other))
	out, code := runRelay(t, "explain", id, "--config", path)
	require.Zero(t, code, out)
	require.Contains(t, out, "event "+id+" in database shop")
	require.NotContains(t, out, "other", "which has not heard of it")

	out, code = runRelay(t, "explain", "0198f0c4-7a1b-7c3d-8e4f-5a6b7c8d9e0f", "--config", path, "--database", "shop")
	require.Zero(t, code, out)
	require.Contains(t, out, "not found")
	require.Contains(t, out, "truncated since")
	out, code = runRelay(t, "explain", "0198f0c4-7a1b-7c3d-8e4f-5a6b7c8d9e0f", "--config", path)
	require.Zero(t, code, out)
	require.Equal(t, 2, strings.Count(out, "not found"))
	out, code = runRelay(t, "explain", "nonsense", "--config", path)
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "is not an event's id")
	out, code = runRelay(t, "explain", "--config", path)
	require.Equal(t, exitUsage, code, out)
}

// Where an event goes is said in the broker's terms, without passwords.
func TestWhereTo(t *testing.T) {
	t.Parallel()
	list := []pipelineConfig{
		{Name: "kafka", Kafka: &kafkaConfig{Brokers: []string{"a:9092", "b:9092"}, Password: "hunter2"}},
		{Name: "queues", RabbitMQ: &rabbitmqConfig{URL: "amqp://u:hunter2@rabbit:5672/", Queues: 4}},
		{Name: "routed", RabbitMQ: &rabbitmqConfig{URL: "amqp://u:hunter2@rabbit:5672/", Exchange: "events", RoutingKey: "{topic}.{type}"}},
	}
	e := relay.EventStory{Type: "placed", Topic: "orders", Key: "k"}
	for pipeline, want := range map[string]string{
		"kafka":  `to topic "orders" of Kafka a:9092,b:9092`,
		"queues": `to queue "orders.`,
		"routed": `to exchange "events" with routing key "orders.placed" of RabbitMQ rabbit:5672`,
		"other":  `to "orders" (the configuration does not have the pipeline)`,
	} {
		got := whereTo(list, relay.PipelineStory{Pipeline: pipeline, State: relay.StoryPublished, Destination: "orders"}, e)
		require.Contains(t, got, want)
		require.NotContains(t, got, "hunter2")
	}
	got := whereTo(list, relay.PipelineStory{Pipeline: "kafka", State: relay.StoryWaiting, Destination: "orders"}, e)
	require.Contains(t, got, "on its way to")
}

// A broker that is away and a topic that is missing, as a relay of its own process
// finds them.
func TestExplainTroubledBrokers(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	broker := svctest.FakeKafka(t, kfake.SeedTopics(1, "another")).ListenAddrs()[0]
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
lease: 1s
pipelines:
  - name: away
    kafka: {brokers: ['127.0.0.1:1']}
  - name: missing
    kafka: {brokers: [%q]}
`, url, broker))
	id := writeEvent(t, conn, "orders", "k")
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	whys := func(p relay.PipelineStory) string {
		var list []string
		for _, r := range p.Reasons {
			list = append(list, r.Kind+" "+r.Text)
		}
		return p.State + ": " + strings.Join(list, "; ")
	}
	var away, missing string
	require.Eventually(t, func() bool {
		out, _ := runRelay(t, "explain", id, "--config", path, "--json")
		var story databaseStory
		if err := json.Unmarshal([]byte(out), &story); err != nil || len(story.Events) != 1 || len(story.Events[0].Pipelines) != 2 {
			return false
		}
		away, missing = whys(story.Events[0].Pipelines[0]), whys(story.Events[0].Pipelines[1])
		return strings.HasPrefix(away, "waiting: circuit the circuit of the broker is") &&
			(strings.HasPrefix(missing, "retrying: failed") || strings.HasPrefix(missing, "dead: failed"))
	}, 60*time.Second, 100*time.Millisecond, log.String())
	t.Logf("\n%s\n%s", away, missing)
	require.Contains(t, missing, "destination")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}
