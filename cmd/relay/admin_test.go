package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/relay/health"
)

var listening = regexp.MustCompile(`what=(admin\.\w+) address=(\S+)`)

// listeners are the addresses that a daemon has logged, by field.
func listeners(log string) map[string]string {
	found := map[string]string{}
	for _, m := range listening.FindAllStringSubmatch(log, -1) {
		found[m[1]] = "http://" + m[2]
	}
	return found
}

// fetch returns 0 if nobody answers.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // read to the end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// A live daemon whose broker is away: ready, with metrics, and it says what is wrong.
func TestAdminOfALiveRelay(t *testing.T) {
	t.Parallel()
	url, conn := outboxAs(t)
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
drain_timeout: 1s
admin: {listen: "127.0.0.1:0", probes: "127.0.0.1:0"}
pipelines:
  - name: shop
    kafka: {brokers: ["127.0.0.1:1"]}
`, url))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(listeners(log.String())) == 2 }, 30*time.Second, 20*time.Millisecond)
	admin, probes := listeners(log.String())["admin.listen"], listeners(log.String())["admin.probes"]
	answers := func(url string, code int, text string) bool {
		got, body := fetch(t, url)
		return got == code && strings.Contains(body, text)
	}
	for _, base := range []string{admin, probes} {
		require.True(t, answers(base+"/livez", 200, "ok"))
		require.Eventually(t, func() bool { return answers(base+"/readyz", 200, "1 of 1") }, 30*time.Second, 20*time.Millisecond)
	}
	require.Eventually(t, func() bool { return answers(admin+"/metrics", 200, "\noutboxkit_relay_ready{") }, 30*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool { return answers(admin+"/metrics", 200, "\noutboxkit_outbox_log_size_bytes{") }, 30*time.Second, 20*time.Millisecond, "of the database")
	require.True(t, answers(probes+"/metrics", 404, ""), "names of topics are for who may know them")
	require.True(t, answers(probes+"/progress", 404, ""), "the network does not see errors")

	_, err := conn.Exec(t.Context(), `INSERT INTO outbox.event (topic, key, type, source, payload) VALUES ('orders', 'k', 't', 's', '{}')`)
	require.NoError(t, err)
	var report health.Report
	require.Eventually(t, func() bool {
		_, body := fetch(t, admin+"/progress")
		report = health.Report{}
		return json.Unmarshal([]byte(body), &report) == nil && len(report.Relays) == 1 && report.Relays[0].Pipelines[0].Cause == "broker"
	}, 30*time.Second, 20*time.Millisecond)
	require.Contains(t, report.Relays[0].Pipelines[0].Reason, "127.0.0.1:1")
	require.True(t, answers(admin+"/readyz", 200, "1 of 1"), "another start would not help")
	require.Eventually(t, func() bool { return answers(admin+"/metrics", 200, "outboxkit_relay_circuit_tripped{") }, 30*time.Second, 20*time.Millisecond)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
	code, _ := fetch(t, admin+"/livez")
	require.Zero(t, code)
}

// Another relay's listener on the default address is no reason not to publish; one
// that somebody asked for is.
func TestTakenAdminAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	url, _ := outboxAs(t)
	for _, field := range []string{"listen", "probes"} {
		path := writeConfig(t, fmt.Sprintf("database: {url: %q}\nadmin: {%s: %q}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n", url, field, taken.Addr()))
		out, code := runRelay(t, "run", "--config", path)
		require.Equal(t, 1, code, out)
		require.Contains(t, out, "admin."+field+": listen tcp "+taken.Addr().String())
	}
	if l, err := net.Listen("tcp", defaultAdmin); err == nil { // else it is taken already
		t.Cleanup(func() { _ = l.Close() })
	}
	var log output
	a, err := startAdmin(t.Context(), adminConfig{}, http.NotFoundHandler(), nil, logConfig{}.loggerTo(&log))
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.Contains(t, log.String(), "no admin listener; set admin.listen to another address")
	require.Contains(t, log.String(), defaultAdmin)
}
