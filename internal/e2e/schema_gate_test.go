package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/migrate"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

func lineType(topic, fields string) event.Type[map[string]any] {
	return event.Type[map[string]any]{Name: "shop.line", Topic: topic, Codec: avro.MustParse(
		`{"type":"record","name":"Line","fields":[{"name":"sku","type":"string"}` + fields + `]}`)}
}

// A service that deploys an incompatible schema fails at its start, with the rule;
// once it runs it asks the registry nothing, also while that is away.
func TestGateOfARealRegistry(t *testing.T) {
	real := svctest.Registry(t)
	url, err := neturl.Parse(real)
	require.NoError(t, err)
	var asked atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(&neturl.URL{Scheme: url.Scheme, Host: url.Host})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	client, err := registry.New(registry.Config{URL: server.URL + url.Path, Attempts: 1, Timeout: 30 * time.Second})
	require.NoError(t, err)

	ctx := t.Context()
	pool, err := pgxpool.New(ctx, pgtest.URL(t))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return migrate.Outbox("").Up(ctx, c.Conn()) }))

	topic := svctest.Unique("lines")
	v1 := lineType(topic, ``)
	bad := lineType(topic, `,{"name":"qty","type":"int"}`)
	good := lineType(topic, `,{"name":"qty","type":"int","default":1}`)
	_, err = client.Register(ctx, topic+"-value", v1.Codec.Schema())
	require.NoError(t, err)
	setBackward(t, real+"/config/"+topic+"-value")

	start := func(typ event.Any) (*outbox.Outbox, error) {
		return outbox.New(ctx, pool, outbox.Config{Source: "/shop", Types: []event.Any{typ}, Gate: schema.Gate(client, schema.ByTopic, avro.Compare)})
	}
	_, err = start(bad)
	require.ErrorIs(t, err, schema.ErrIncompatible)
	require.ErrorContains(t, err, fmt.Sprintf("subject %q, mode BACKWARD: incompatible schema: field `qty`: added without default breaks BACKWARD", topic+"-value"))
	_, err = start(good)
	require.NoError(t, err)

	server.Close()
	before := asked.Load()
	ob, err := start(good)
	require.NoError(t, err, "its schema is in the log: it has passed")
	write := func(v map[string]any) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return ob.Write(ctx, tx, good.New(v)) })
	}
	require.NoError(t, write(map[string]any{"sku": "a", "qty": 2}))
	require.ErrorContains(t, write(map[string]any{"sku": "a", "qty": "two"}), "qty")
	require.Equal(t, before, asked.Load(), "Write asks nobody")
	_, err = start(lineType(topic, `,{"name":"gift","type":"boolean","default":false}`))
	require.ErrorIs(t, err, event.ErrSchemaUnavailable, "a schema that was never seen")
}

func setBackward(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(`{"compatibility":"BACKWARD"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}
