package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/certtest"
	"github.com/outboxkit/outboxkit/internal/page"
)

// pageStory is what the page tells of an event.
type pageStory struct {
	Explained string
	Found     []struct {
		Store   string
		Letters []page.Letter
	}
	Problems []string
}

// Pipelines of the same name in two databases are told apart: state, dead letters,
// commands and stories.
func TestPageOfTwoDatabases(t *testing.T) {
	t.Parallel()
	first, _ := parkedHere(t)
	second, conn := outboxAs(t)
	_, err := conn.Exec(t.Context(), `INSERT INTO outbox.pipeline (name) VALUES ('kafka')`)
	require.NoError(t, err)
	var id string
	require.NoError(t, conn.QueryRow(t.Context(), `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, state, blocks)
		VALUES ('kafka', outbox.uuid_v7(), 'orders', 'orders', 'other', 'placed', '/shop', now(), '{}', 'retrying', true) RETURNING event_id::text`).Scan(&id))
	server := servePage(t, writeConfig(t, fmt.Sprintf(`databases:
  - {name: first, url: %q}
  - {name: second, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
`, first, second)))

	keys := map[string][]string{"first": {"it's·", "it's·"}, "second": {"other"}}
	dead := map[string]int64{"first": 1, "second": 0}
	for name := range keys {
		var state pageState
		require.Eventually(t, func() bool {
			state = ask[pageState](t, server, "/api/status", "database", name)
			return state.Shown.Status != nil
		}, 30*time.Second, 20*time.Millisecond)
		require.Equal(t, name, state.Shown.Name)
		require.Equal(t, "outbox "+name, state.Shown.Store)
		require.Equal(t, []string{"outbox first", "outbox second"}, state.Stores)
		require.Len(t, state.Shown.Status.Pipelines, 1)
		require.Equal(t, dead[name], state.Shown.Status.Pipelines[0].Parked.Dead)
		for _, a := range state.Shown.Pipelines["kafka"].Advice {
			for _, c := range a.Commands {
				require.Contains(t, c.Command, " --database "+name+" ")
			}
		}
		var got []string
		for _, l := range ask[pageLetters](t, server, "/api/letters", "store", state.Shown.Store, "owner", "kafka").Letters {
			got = append(got, l.Key)
		}
		require.Equal(t, keys[name], got)
		shown := ask[page.Letter](t, server, "/api/letter", "store", state.Shown.Store, "n", "1")
		require.Equal(t, keys[name][0], shown.Key)
		require.Contains(t, shown.Commands[0].Command, "relay dlq show 1 --database "+name+" --config /")
	}
	require.Equal(t, "first", ask[pageState](t, server, "/api/status").Shown.Name)

	story := ask[pageStory](t, server, "/api/event", "id", id)
	require.Empty(t, story.Problems)
	require.Len(t, story.Found, 1)
	require.Equal(t, "outbox second", story.Found[0].Store)
	require.Contains(t, story.Explained, "event "+id+" in database second\n")
	require.NotContains(t, story.Explained, "in database first")
}

// A database that does not answer hides nothing of what the others know.
func TestPageStoryBesideASilentDatabase(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	outboxURL, conn := outboxAs(t)
	inboxURL, _ := consumerDatabase(t)
	id := writeEvent(t, conn, "orders", "k")
	server := servePage(t, writeConfig(t, fmt.Sprintf(`databases:
  - {name: silent, url: 'postgres://relay@%s/shop?sslmode=disable'}
  - {name: shop, url: %q}
inboxes:
  - {name: stock, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
`, l.Addr(), outboxURL, inboxURL)))
	story := ask[pageStory](t, server, "/api/event", "id", id)
	require.Contains(t, story.Explained, "event "+id+" in database silent: ")
	require.Contains(t, story.Explained, "event "+id+" in database shop\n")
	require.Contains(t, story.Explained, "committed; written at")
	require.Contains(t, story.Explained, "NOT SEEN (inbox stock)")
	require.Len(t, story.Problems, 2, "%q", story.Problems)
	require.Contains(t, story.Problems[0], "1 of 3 did not answer")
	require.Contains(t, story.Problems[1], "outbox silent: ")
}

// Consumers get events from elsewhere, whose ids no outbox gives.
func TestPageStoryOfAnotherID(t *testing.T) {
	t.Parallel()
	outboxURL, _ := parkedHere(t)
	inboxURL, _ := consumerDatabase(t)
	server := servePage(t, writeConfig(t, fmt.Sprintf(`database: {url: %q}
inboxes:
  - {name: stock, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
`, outboxURL, inboxURL)))
	story := ask[pageStory](t, server, "/api/event", "id", "id0")
	require.Contains(t, story.Explained, `"id0" is not an event's id (a UUID such as`)
	require.Empty(t, story.Problems)
	require.Len(t, story.Found, 1)
	require.Equal(t, "inbox stock", story.Found[0].Store)
}

// What cannot be read says what to do, as the commands do, and no password.
func TestPageErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	outboxURL, _ := parkedHere(t)
	u, err := url.Parse(outboxURL)
	require.NoError(t, err)
	u.User = url.UserPassword("no_such_role", "hunter2")
	server := servePage(t, writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: kafka\n    kafka: {brokers: ['127.0.0.1:1']}\n", u.String())))
	const next = "relay config show has the configured role"
	for _, path := range []string{"/api/letters?store=outbox", "/api/letter?store=outbox&n=1"} {
		code, body := fetch(t, server.URL+path)
		require.Equal(t, http.StatusServiceUnavailable, code, body)
		require.Contains(t, body, next)
		require.NotContains(t, body, "hunter2")
	}
	var state pageState
	require.Eventually(t, func() bool {
		state = ask[pageState](t, server, "/api/status")
		return state.Shown.Error != ""
	}, 30*time.Second, 20*time.Millisecond)
	require.Contains(t, state.Shown.Error, next)
	require.NotContains(t, state.Shown.Error, "hunter2")
}

// A daemon whose configuration is in the environment alone has no file to name.
func TestPageCommandsWithoutAFile(t *testing.T) {
	t.Parallel()
	outboxURL, _ := parkedHere(t)
	c, err := loadConfig(writeConfig(t, fmt.Sprintf("database: {url: %q}\npipelines:\n  - name: kafka\n    kafka: {brokers: ['127.0.0.1:1']}\n", outboxURL)))
	require.NoError(t, err)
	server := servePageOf(t, c, filepath.Join(t.TempDir(), "relay.yaml"))
	shown := ask[page.Letter](t, server, "/api/letter", "store", "outbox", "n", "1")
	require.Equal(t, "relay dlq show 1", shown.Commands[0].Command)
}

// What "relay run" serves behind a token and TLS is for who has the token, all of it.
func TestPageOfTheDaemonNeedsTheToken(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef-token"
	outboxURL, _ := outboxAs(t)
	ca, dir := certtest.NewCA(t, "page"), t.TempDir()
	pair := ca.Server(t, "127.0.0.1")
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
drain_timeout: 1s
admin:
  listen: '127.0.0.1:0'
  probes: '127.0.0.1:0'
  token: %s
  tls: {cert_file: %q, key_file: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
`, outboxURL, token, certtest.Write(t, dir, "tls.crt", pair.Cert), certtest.Write(t, dir, "tls.key", pair.Key)))
	var log output
	cmd := command(t, &log, "run", "--config", path)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(listeners(log.String())) == 2 }, 30*time.Second, 20*time.Millisecond)
	found := listeners(log.String())
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca.PEM))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(client.CloseIdleConnections)
	get := func(path string, login func(*http.Request)) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(found["admin.listen"], "http://", "https://", 1)+path, nil)
		require.NoError(t, err)
		login(r)
		resp, err := client.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close() //nolint:errcheck // read to the end
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, resp.Header, string(body)
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) { // the page follows the listener
		if code, _, _ := get("/", bearer); code == http.StatusOK {
			break
		}
		require.Less(t, time.Since(begun), 30*time.Second, log.String())
	}

	for _, path := range []string{"/", "/assets/page.js", "/api/status", "/api/letters?store=outbox", "/api/event?id=0198f0c4"} {
		for who, login := range map[string]func(*http.Request){
			"nobody":        func(*http.Request) {},
			"a wrong token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") },
			"a user alone":  func(r *http.Request) { r.SetBasicAuth(token, "") },
		} {
			code, _, body := get(path, login)
			require.Equal(t, http.StatusUnauthorized, code, "%s: %s", who, path)
			require.NotContains(t, body, "kafka")
		}
		for _, login := range []func(*http.Request){bearer, func(r *http.Request) { r.SetBasicAuth("me", token) }} {
			code, header, body := get(path, login)
			require.Equal(t, http.StatusOK, code, path)
			require.Contains(t, header.Get("Content-Security-Policy"), "script-src 'self'", "the page's, not the listener's")
			require.NotContains(t, body, token)
		}
		code, _ := fetch(t, found["admin.listen"]+path)
		require.NotEqual(t, http.StatusOK, code, "in plain text")
		code, _ = fetch(t, found["admin.probes"]+path)
		require.Equal(t, http.StatusNotFound, code, "probes show no page")
	}
	code, _, _ := get("/livez", func(*http.Request) {})
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
	require.NotContains(t, log.String(), token)
}
