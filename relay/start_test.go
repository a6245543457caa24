package relay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	p := Pipeline{Name: "p", To: &recorder{}}
	for field, cfg := range map[string]Config{
		"Config.Schema":            {Schema: "Bad-Name", Pipelines: []Pipeline{p}},
		"Config.Lease":             {Lease: time.Millisecond, Pipelines: []Pipeline{p}},
		"Config.DrainTimeout":      {DrainTimeout: -1, Pipelines: []Pipeline{p}},
		"Config.Retention":         {Retention: -1, Pipelines: []Pipeline{p}},
		"Config.Pipelines":         {},
		"Config.Pipelines[0].Name": {Pipelines: []Pipeline{{To: brokers.Publisher(&recorder{})}}},
		"Config.Pipelines[1].Name": {Pipelines: []Pipeline{p, p}},
		"Config.Pipelines[0].To":   {Pipelines: []Pipeline{{Name: "p"}}},
	} {
		_, err := New(pool, cfg)
		var fe *event.FieldError
		require.ErrorAs(t, err, &fe, field)
		require.Equal(t, field, fe.Field)
	}
	_, err := New(nil, Config{Pipelines: []Pipeline{p}})
	require.Error(t, err)
}

func TestMissingMigration(t *testing.T) {
	t.Parallel()
	err := newRelay(t, pgtest.Pool(t), config(&recorder{})).Run(t.Context())
	require.ErrorIs(t, err, ErrNotMigrated)
	require.ErrorContains(t, err, "relay migrate up")
}

// Each right that the printed grants give the relay is needed: without any one of
// them Run says which.
func TestMissingGrants(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	kinds, objects, privileges := wanted()
	for i := range objects {
		kind := map[string]string{"T": "TABLE", "S": "SEQUENCE"}[kinds[i]]
		object := "outbox." + objects[i]
		db.exec(t, `REVOKE `+privileges[i]+` ON `+kind+` `+object+` FROM outbox_relay`)
		err := newRelay(t, db.relay, config(&recorder{})).Run(t.Context())
		var g *GrantError
		require.ErrorAs(t, err, &g)
		require.ErrorIs(t, err, ErrMissingGrant)
		require.Equal(t, GrantError{Role: "outbox_relay", Privilege: privileges[i], Object: kind + " " + object}, *g)
		db.exec(t, `GRANT `+privileges[i]+` ON `+object+` TO outbox_relay`)
	}
	db.exec(t, `REVOKE SELECT ON outbox.schema_version FROM outbox_relay`)
	require.ErrorContains(t, newRelay(t, db.relay, config(&recorder{})).Run(t.Context()), "GRANT SELECT ON TABLE outbox.schema_version")
	db.exec(t, `REVOKE USAGE ON SCHEMA outbox FROM outbox_relay`)
	require.ErrorContains(t, newRelay(t, db.relay, config(&recorder{})).Run(t.Context()), `GRANT USAGE ON SCHEMA outbox TO "outbox_relay"`)
}

// A right that is taken away while the relay runs ends Run with its name.
func TestGrantRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newRelay(t, db.relay, config(&recorder{}))
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	eventually(t, r.caughtUp, "started")
	db.exec(t, `REVOKE SELECT ON outbox.event FROM outbox_relay`)
	db.write(t, "k", "1") // idle, it would read no event
	select {
	case err := <-done:
		require.ErrorContains(t, err, "GRANT SELECT ON TABLE outbox.event TO")
	case <-time.After(patience):
		t.Fatal("Run goes on")
	}
}

// A second pipeline that is added later starts at the oldest retained event.
func TestNewPipelineStartsAtTheOldestEvent(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first, second := &recorder{}, &recorder{}
	db.write(t, "k", "1")
	cfg := config(first)
	r := newRelay(t, db.relay, cfg)
	stop := running(t, r)
	eventually(t, func() bool { return len(first.messages()) == 1 }, "first")
	require.NoError(t, stop())
	db.write(t, "k", "2")
	cfg.Pipelines = append(cfg.Pipelines, Pipeline{Name: "second", To: second})
	stop = running(t, newRelay(t, db.relay, cfg))
	eventually(t, func() bool { return len(second.messages()) == 2 && len(first.messages()) == 2 }, "both")
	require.NoError(t, stop())
	require.Equal(t, []string{"1", "2"}, first.payloads())
	require.Equal(t, []string{"1", "2"}, second.payloads())
}
