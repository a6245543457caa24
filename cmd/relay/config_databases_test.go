package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/relay"
)

const manyDatabases = `databases:
  - url: postgres://relay@db/shop
    schema: one
  - url: postgres://relay@db/billing
    name: bills
    pipelines:
      - name: rabbit
        rabbitmq: {url: "amqp://localhost/"}
  - url: postgres://relay@other/audit
pipelines:
  - name: kafka
    kafka:
      brokers: [localhost:9092]
`

func TestSeveralDatabases(t *testing.T) {
	c, err := loadConfig(writeConfig(t, manyDatabases))
	require.NoError(t, err)
	var got []string
	for _, d := range c.each() {
		got = append(got, d.Name+" "+d.Schema+" "+d.Pipelines[0].Name)
	}
	require.Equal(t, []string{"shop one kafka", "bills  rabbit", "audit  kafka"}, got)

	one, err := c.one("bills")
	require.NoError(t, err)
	require.Equal(t, "postgres://relay@db/billing", one.Database.URL)
	require.Equal(t, "rabbit", one.Pipelines[0].Name)
	_, err = c.one("")
	require.ErrorContains(t, err, `--database "" is not one of shop, bills, audit`)
	_, err = c.one("none")
	require.ErrorContains(t, err, `--database "none" is not one of`)

	single, err := loadConfig(writeConfig(t, "database: {url: postgres://h/d}\npipelines: [{name: x, kafka: {brokers: [a]}}]\n"))
	require.NoError(t, err)
	one, err = single.one("")
	require.NoError(t, err)
	require.Equal(t, single, one)
	_, err = single.one("d")
	require.ErrorContains(t, err, "has no list of databases")
}

func TestBadDatabasesNameLineAndField(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"both forms":        {"databases:\n", "database: {url: x}\ndatabases:\n", `relay.yaml:2: databases: cannot stand beside database`},
		"unknown key":       {"    name: bills", "    nam: bills", `relay.yaml:5: unknown field "nam"`},
		"no url":            {"postgres://relay@other/audit", "''", `relay.yaml:9: databases[2].url: is empty`},
		"not Postgres":      {"postgres://relay@other/audit", "mysql://x", `relay.yaml:9: databases[2].url: is not a Postgres URL`},
		"schema":            {"schema: one", "schema: One", `relay.yaml:3: databases[0].schema: "One" is not a schema name`},
		"same name":         {"other/audit", "other/shop", `databases[2].name: "shop" is used twice`},
		"same place":        {"postgres://relay@other/audit", "postgres://relay@db/billing", `relay.yaml:9: databases[2].url: is in the list twice`},
		"no pipelines":      {manyDatabases[strings.LastIndex(manyDatabases, "pipelines:"):], "", `databases[0].pipelines: is empty, and there are none at the top`},
		"a nested pipeline": {`url: "amqp://localhost/"`, `url: "http://localhost/"`, `relay.yaml:8: databases[1].pipelines[0].rabbitmq.url: is not an AMQP URL`},
		"a shared pipeline": {"brokers: [localhost:9092]", "brokers: []", `relay.yaml:13: pipelines[0].kafka.brokers: is empty`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, manyDatabases, c.from)
			_, err := loadConfig(writeConfig(t, strings.Replace(manyDatabases, c.from, c.to, 1)))
			require.ErrorContains(t, err, c.want)
		})
	}
}

const routed = `database: {url: postgres://h/d}
pipelines:
  - name: new
    rabbitmq:
      url: amqp://localhost/
      exchange: shop
      routing_key: "v1.{topic}.{type}"
      declare: true
    filter:
      topics: [orders, bills]
      types: [placed]
    topics:
      orders: shop.orders.v1
      "*": "shop.{topic}"
    start:
      pipeline: old
`

func TestRouting(t *testing.T) {
	c, err := loadConfig(writeConfig(t, routed))
	require.NoError(t, err)
	a := newAdapters(nil)
	cfg, err := c.relay(a, nil)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	p := cfg.Pipelines[0]
	require.Equal(t, relay.Filter{Topics: []string{"orders", "bills"}, Types: []string{"placed"}}, p.Filter)
	require.Equal(t, relay.Start{Pipeline: "old"}, p.Start)
	require.Equal(t, "shop.orders.v1", p.Topic("orders"))
	require.Equal(t, "shop.bills", p.Topic("bills"))
	exchange, key := c.Pipelines[0].RabbitMQ.config(nil).Route(&brokers.Message{Topic: "shop.bills", Type: "placed"})
	require.Equal(t, []string{"shop", "v1.shop.bills.placed"}, []string{exchange, key})

	now, err := loadConfig(writeConfig(t, strings.Replace(routed, "pipeline: old", "at: now", 1)))
	require.NoError(t, err)
	require.Equal(t, relay.Start{Now: true}, now.Pipelines[0].start())
}

func TestBadRoutingNamesLineAndField(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"filter key":   {"types: [placed]", "type: [placed]", `relay.yaml:11: unknown field "type"`},
		"filter list":  {"topics: [orders, bills]", "topics: orders", `relay.yaml:10: pipelines[0].filter.topics: is a text, must be a list`},
		"empty topic":  {"[orders, bills]", "[orders, '']", `relay.yaml:10: pipelines[0].filter.topics[1]: is empty`},
		"empty type":   {"[placed]", "['']", `relay.yaml:11: pipelines[0].filter.types[0]: is empty`},
		"mapped empty": {"orders: shop.orders.v1", "orders: ''", `relay.yaml:13: pipelines[0].topics.orders: is empty`},
		"placeholder":  {"shop.orders.v1", "shop.{type}", `relay.yaml:13: pipelines[0].topics.orders: "shop.{type}" has a placeholder that is not known: use {topic}`},
		"topics a text": {`topics:
      orders: shop.orders.v1
      "*": "shop.{topic}"`, "topics: x", `relay.yaml:12: pipelines[0].topics: is a text, must be a group of keys`},
		"start word":  {"pipeline: old", "at: yesterday", `relay.yaml:16: pipelines[0].start.at: "yesterday" is not known: use oldest, now`},
		"start both":  {"pipeline: old", "pipeline: old\n      at: now", `relay.yaml:15: pipelines[0].start: has both at and pipeline`},
		"start self":  {"pipeline: old", "pipeline: new", `relay.yaml:16: pipelines[0].start.pipeline: "new" is the pipeline itself`},
		"routing key": {"{topic}.{type}", "{key}", `relay.yaml:7: pipelines[0].rabbitmq.routing_key: "v1.{key}" has a placeholder that is not known: use {topic}, {type}`},
		"queues too":  {"declare: true", "queues: 4", `relay.yaml:7: pipelines[0].rabbitmq.routing_key: cannot stand beside queues`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, routed, c.from)
			_, err := loadConfig(writeConfig(t, strings.Replace(routed, c.from, c.to, 1)))
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Pipelines of the same broker settings share a client, others do not.
func TestClientsAreShared(t *testing.T) {
	a := newAdapters(nil)
	k := pipelineConfig{Name: "a", Kafka: &kafkaConfig{Brokers: []string{"x:1"}}}
	same := pipelineConfig{Name: "b", Kafka: &kafkaConfig{Brokers: []string{"x:1"}}, routingConfig: routingConfig{Topics: map[string]string{"a": "b"}}}
	other := pipelineConfig{Name: "a", Kafka: &kafkaConfig{Brokers: []string{"x:1"}, TLS: &tlsConfig{}}}
	var got []brokers.Publisher
	for _, p := range []pipelineConfig{k, same, other} {
		to, err := a.publisher(p)
		require.NoError(t, err)
		got = append(got, to)
	}
	require.Same(t, got[0], got[1])
	require.NotSame(t, got[0], got[2])
	require.NoError(t, a.Close())
}
