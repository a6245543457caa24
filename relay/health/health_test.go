package health_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/relay/health"
)

func is(h relay.Health) func() relay.Health { return func() relay.Health { return h } }

func get(h http.Handler) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Code, w.Body.String()
}

var (
	well = health.Relay{Database: "shop", Health: is(relay.Health{Ready: true, Pipelines: []relay.PipelineHealth{{Name: "kafka", Shards: 64}}})}
	// Its Postgres does not answer.
	lost = health.Relay{Database: "crm", Health: is(relay.Health{Reason: "connection refused",
		Pipelines: []relay.PipelineHealth{{Name: "kafka", Stuck: true, StillSeconds: 90, Cause: relay.CausePostgres, Reason: "connection refused"}}})}
	// Its broker does not answer.
	waiting = health.Relay{Database: "mail", Health: is(relay.Health{Ready: true,
		Pipelines: []relay.PipelineHealth{{Name: "kafka", Stuck: true, StillSeconds: 90, Cause: relay.CauseBroker, Reason: "no route"}}})}
)

func TestReady(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		relays []health.Relay
		code   int
		text   string
	}{
		"all":                      {[]health.Relay{well}, 200, "1 of 1 relays are ready\n"},
		"one of two":               {[]health.Relay{well, lost}, 200, "1 of 2 relays are ready; not those of crm\n"},
		"none":                     {[]health.Relay{lost}, 503, "0 of 1 relays are ready; not those of crm\n"},
		"broker away":              {[]health.Relay{waiting}, 200, "1 of 1 relays are ready\n"},
		"nothing has begun so far": {nil, 503, "0 of 0 relays are ready\n"},
	} {
		code, text := get(health.Ready(tc.relays...))
		require.Equal(t, tc.code, code, name)
		require.Equal(t, tc.text, text, name)
	}
}

// Whatever is broken, no probe of these removes or restarts a process that still
// does something, and with an embedded relay the service around it.
func TestNoOutageTakesAProcessDown(t *testing.T) {
	t.Parallel()
	for _, r := range []health.Relay{well, lost, waiting} {
		code, _ := get(health.Live())
		require.Equal(t, 200, code)
		code, _ = get(health.Progress(r))
		require.Equal(t, 200, code, r.Database)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	_, text := get(health.Progress(well, waiting))
	var report struct {
		Stuck  bool
		Relays []struct {
			Database  string
			Ready     bool
			Pipelines []struct {
				Name, Cause, Reason string
				Stuck               bool
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(text), &report), text)
	require.True(t, report.Stuck)
	require.Equal(t, "shop", report.Relays[0].Database)
	require.False(t, report.Relays[0].Pipelines[0].Stuck)
	p := report.Relays[1].Pipelines[0]
	require.True(t, p.Stuck)
	require.Equal(t, []string{"kafka", "broker", "no route"}, []string{p.Name, p.Cause, p.Reason})

	_, text = get(health.Progress(well))
	require.Contains(t, text, `"stuck": false`)
	_, text = get(health.Progress())
	require.JSONEq(t, `{"stuck": false, "relays": []}`, text)
}
