package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/page"
	"github.com/outboxkit/outboxkit/relay"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// servePage serves the page of a configuration on loopback, as the daemon does.
func servePage(t *testing.T, path string) *httptest.Server {
	t.Helper()
	c, err := loadConfig(path)
	require.NoError(t, err)
	return servePageOf(t, c, path)
}

// servePageOf serves it as if it came from path.
func servePageOf(t *testing.T, c config, path string) *httptest.Server {
	t.Helper()
	w, err := startPage(t.Context(), c, path, nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/", http.NotFoundHandler()) // the daemon's other answers
	w.mount(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.Close()
		w.close()
	})
	return server
}

func ask[T any](t *testing.T, server *httptest.Server, path string, parameters ...string) (answer T) {
	t.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path+"?"+q.Encode(), nil)
	require.NoError(t, err)
	got, err := server.Client().Do(r)
	require.NoError(t, err)
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, got.StatusCode, string(body))
	require.NoError(t, json.Unmarshal(body, &answer), string(body))
	return answer
}

// shell runs a command line that the page shows.
func shell(t *testing.T, line string) (string, int) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `relay() { "$RELAY_TEST_SELF" "$@"; }; `+line)
	ours := func(variable string) bool { return strings.HasPrefix(variable, envPrefix) }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), ours), envMain+"=1", "RELAY_TEST_SELF="+self)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

type pageState struct {
	Stores, Notes []string
	Shown         struct {
		Name, Store, Error string
		Status             *struct {
			Pipelines []struct {
				Name   string
				Parked struct{ Dead int64 }
			}
		}
		Pipelines map[string]struct {
			Broker, Level string
			Advice        []struct {
				Text     string
				Commands []page.Command
			}
		}
	}
}

type pageLetters struct {
	Letters []page.Letter
	Next    int64
}

// parkedHere is a migrated outbox whose relay may not be running, with dead events 1
// and 2 of pipeline kafka. The first is Avro and its texts are hostile, the second
// waits behind it.
func parkedHere(t *testing.T) (url string, rows func() string) {
	t.Helper()
	url, conn := outboxAs(t)
	data, err := avro.MustParse(itemSchema).Encode(map[string]any{"sku": "x", "price": price("12.50")})
	require.NoError(t, err)
	for _, statement := range []string{
		`INSERT INTO outbox.pipeline (name) VALUES ('kafka')`,
		`INSERT INTO outbox.schema (fp, format, text, content_type) VALUES (1, 'avro', '` + itemSchema + `', 'application/avro')`,
	} {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.parked (pipeline, event_id, topic, destination, key, type, source, time, payload, schema_fp, state, blocks, class, reason, attempts)
		SELECT 'kafka', outbox.uuid_v7(), 'orders', 'orders', E'it''s\u202e', 'placed', '/shop', now(), $1, 1, s, true, 'rejected', E'too\x1blarge', 3
		FROM unnest(ARRAY['dead', 'blocked']) s`, data)
	require.NoError(t, err)
	return url, func() string {
		var all string
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT concat(
			(SELECT string_agg(p::text, E'\n' ORDER BY n) FROM outbox.parked p), (SELECT string_agg(l::text, E'\n') FROM outbox.lease l),
			(SELECT string_agg(p::text, E'\n') FROM outbox.pipeline p), (SELECT count(*) FROM outbox.position), (SELECT count(*) FROM outbox.parked_action))`).Scan(&all))
		return all
	}
}

// The page shows what relay dlq shows, of outbox and inbox, and changes nothing.
func TestPageShowsWhatTheCommandsShow(t *testing.T) {
	t.Parallel()
	outboxURL, rows := parkedHere(t)
	inboxURL, _ := consumerDatabase(t)
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
hide: [price]
inboxes:
  - {name: stock, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
  - name: rabbit
    rabbitmq: {url: 'amqp://shop:hunter2@rabbit:5672/'}
`, outboxURL, inboxURL))
	before := rows()
	server := servePage(t, path)
	var state pageState
	require.Eventually(t, func() bool {
		state = ask[pageState](t, server, "/api/status")
		return state.Shown.Status != nil
	}, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, []string{"outbox", "inbox stock"}, state.Stores)
	require.Empty(t, state.Notes)
	require.Equal(t, "outbox", state.Shown.Store)
	require.EqualValues(t, 1, state.Shown.Status.Pipelines[0].Parked.Dead)
	require.Equal(t, "Kafka 127.0.0.1:1", state.Shown.Pipelines["kafka"].Broker)
	require.Equal(t, "bad", state.Shown.Pipelines["kafka"].Level)

	for store, flags := range map[string][]string{"outbox": nil, "inbox stock": {"--inbox", "stock"}} {
		list := ask[pageLetters](t, server, "/api/letters", "store", store)
		require.NotEmpty(t, list.Letters)
		for _, row := range list.Letters {
			require.NotContains(t, row.Key+row.Reason, "\x1b")
			require.NotContains(t, row.Key, "\u202e", "nothing turns the text around")
			shown := ask[page.Letter](t, server, "/api/letter", "store", store, "n", fmt.Sprint(row.N))
			printed, code := runRelay(t, append([]string{"dlq", "show", fmt.Sprint(row.N), "--config", path}, flags...)...)
			require.Zero(t, code, printed)
			for _, line := range shown.Lines {
				require.Contains(t, printed, fmt.Sprintf("%-13s %s", line.Name, line.Text))
			}
			for line := range strings.SplitSeq(shown.Payload, "\n") {
				require.Contains(t, printed, line)
			}
		}
	}
	shown := ask[page.Letter](t, server, "/api/letter", "store", "outbox", "n", "1")
	require.Contains(t, shown.Payload, `"sku": "x"`)
	require.NotContains(t, shown.Payload, "12.5", "what is hidden from the command is hidden here")
	require.Equal(t, before, rows())
	dead := ask[pageLetters](t, server, "/api/letters", "store", "outbox", "state", "dead", "owner", "kafka", "type", "placed")
	require.Len(t, dead.Letters, 1)
	require.Empty(t, ask[pageLetters](t, server, "/api/letters", "store", "outbox", "owner", "rabbit").Letters)
}

// Every command on the page is one that the shell and relay understand, and does what
// it says.
func TestPageCommandsWork(t *testing.T) {
	t.Parallel()
	outboxURL, rows := parkedHere(t)
	inboxURL, pool := consumerDatabase(t)
	text := fmt.Sprintf(`databases:
  - {name: it's a shop, url: %q}
inboxes:
  - {name: the stock's, url: %q}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
`, outboxURL, inboxURL)
	path := filepath.Join(t.TempDir(), "it's $HOME", "relay.yaml")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	server := servePage(t, path)

	var state pageState
	require.Eventually(t, func() bool {
		state = ask[pageState](t, server, "/api/status")
		return state.Shown.Status != nil
	}, 30*time.Second, 20*time.Millisecond)
	for _, a := range state.Shown.Pipelines["kafka"].Advice {
		for _, c := range a.Commands {
			out, code := shell(t, c.Command)
			require.Zero(t, code, c.Command+"\n"+out)
		}
	}
	for store, want := range map[string]string{"outbox it's a shop": "dead", "inbox the stock's": "dead"} {
		shown := ask[page.Letter](t, server, "/api/letter", "store", store, "n", "1")
		require.Equal(t, want, shown.State)
		commands := map[string]string{}
		for _, c := range shown.Commands {
			commands[strings.Fields(c.Command)[2]] = c.Command
		}
		out, code := shell(t, commands["show"])
		require.Zero(t, code, out)
		require.Contains(t, out, "dead")
		out, code = shell(t, commands["redrive"]+" --wait 0")
		require.Zero(t, code, out)
		require.Contains(t, out, "1 events are to be redriven")
		out, code = shell(t, commands["discard"])
		require.Zero(t, code, out)
	}
	require.Contains(t, rows(), "discarded")
	var got string
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT state FROM inbox.dead WHERE n = 1`).Scan(&got))
	require.Equal(t, "discarded", got)
	story := ask[pageStory](t, server, "/api/event", "id", "id0")
	require.Len(t, story.Found, 1, "a discarded one is part of its story")
	require.Equal(t, "discarded", story.Found[0].Letters[0].State)
}

// A daemon need not have what its list of inboxes needs.
func TestPageWithoutTheInboxes(t *testing.T) {
	t.Parallel()
	outboxURL, _ := parkedHere(t)
	path := writeConfig(t, fmt.Sprintf(`database: {url: %q}
inboxes:
  - {name: stock, url: 'postgres://stock:${NO_SUCH_VARIABLE}@db/stock'}
pipelines:
  - name: kafka
    kafka: {brokers: ['127.0.0.1:1']}
`, outboxURL))
	state := ask[pageState](t, servePage(t, path), "/api/status")
	require.Equal(t, []string{"outbox"}, state.Stores)
	require.Len(t, state.Notes, 1)
	require.Contains(t, state.Notes[0], "environment variable NO_SUCH_VARIABLE is not set")
}

func TestBrokersAreNamedWithoutSecrets(t *testing.T) {
	t.Parallel()
	require.Equal(t, "RabbitMQ rabbit:5672", pipelineConfig{RabbitMQ: &rabbitmqConfig{URL: "amqp://shop:hunter2@rabbit:5672/v"}}.broker())
	require.Equal(t, "RabbitMQ", pipelineConfig{RabbitMQ: &rabbitmqConfig{URL: "amqp://shop:hunt%zzer2@rabbit"}}.broker())
	require.Equal(t, "Kafka a:1, b:2", pipelineConfig{Kafka: &kafkaConfig{Brokers: []string{"a:1", "b:2"}, Password: "hunter2"}}.broker())
}

func TestLastErrorsAreShortAndPrintable(t *testing.T) {
	t.Parallel()
	at := time.Now()
	got := lastErrors(relay.Stats{Pipelines: []relay.PipelineStats{{Name: "a", LastError: "bad\x1b[2J" + strings.Repeat("x", 1000), LastErrorAt: at}, {Name: "b"}}})
	require.Equal(t, page.LastError{Text: "bad·[2J" + strings.Repeat("x", 492) + "…", At: at}, got["a"])
	require.Empty(t, got["b"].Text)
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"plain", "", "two words", "it's", `"$(id)" \ * ~ # ; &`, "-n", "line\nbreak", "ümlaut"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellWord(word)).Output()
		require.NoError(t, err)
		require.Equal(t, word, string(out))
	}
	require.Equal(t, "/etc/relay.yaml", shellWord("/etc/relay.yaml"))
}
