package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func secretFileWith(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestSecretsFromFiles(t *testing.T) {
	t.Setenv("SECRET_USER", "relay")
	path := secretFileWith(t, "pa$${x}word\n")
	got, err := expand("postgres://${SECRET_USER}:${file:" + path + "}@db/shop")
	require.NoError(t, err)
	require.Equal(t, "postgres://relay:pa$${x}word@db/shop", got, "what a file contains is not expanded again")
	large := secretFileWith(t, strings.Repeat("x", secretLimit+1))
	for text, want := range map[string]string{
		"${file:relative}":   "${file:relative}: write the whole path, from /",
		"${file:}":           "write the whole path",
		"${file:/none/such}": "no such file",
		"${file:" + secretFileWith(t, "\n") + "}": "the file is empty",
		"${file:" + large + "}":                   "is larger than",
		"${file:/dev/zero}":                       "is larger than",
		"${SECRET_NONE} and ${file:/none/such}":   "environment variable SECRET_NONE is not set; ${file:/none/such}",
		"${file:" + t.TempDir() + "}":             "is a directory",
	} {
		_, err := expand(text)
		require.ErrorContains(t, err, want)
	}
	for _, text := range []string{"pa$$word", "${", "${file:/x", "$SECRET_USER", "{topic}", "${1}"} {
		got, err := expand(text)
		require.NoError(t, err)
		require.Equal(t, text, got)
	}
}

// A password beside its URL is taken as it is, whatever it contains.
func TestPasswordsBesideTheirURL(t *testing.T) {
	t.Parallel()
	const odd = "p@ss/w%2Frd: #?"
	path := secretFileWith(t, odd+"\n")
	c, err := loadConfig(writeConfig(t, "database: {url: 'postgres://u:other@h/d', password: '${file:"+path+"}'}\npipelines: [{name: x, rabbitmq: {url: 'amqp://u@h:5672/%2Fv', password: '${file:"+path+"}'}}]\n"))
	require.NoError(t, err)
	pool, err := openPool(t.Context(), c)
	require.NoError(t, err)
	defer pool.Close()
	require.Equal(t, odd, pool.Config().ConnConfig.Password)
	u, err := amqp.ParseURI(c.Pipelines[0].RabbitMQ.config(nil).URL)
	require.NoError(t, err)
	require.Equal(t, []string{"u", odd, "h", "/v"}, []string{u.Username, u.Password, u.Host, u.Vhost})
}

func TestPasswordsAreTakenOut(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"dial postgres://u:hunter2@h:5432/d: refused":    "dial postgres://u:***@h:5432/d: refused",
		"amqp://u:hun@t/er2@h/ and amqps://u:hunter2@h/": "amqp://u:***@h/ and amqps://u:***@h/",
		"host=h password=hunter2 dbname=d":               "host=h password=*** dbname=d",
		"host=h password = 'hun ter2' dbname=d":          "host=h password = *** dbname=d",
		"postgres://h/d?sslpassword=hunter2&a=b":         "postgres://h/d?sslpassword=***&a=b",
		"http://h:8081/subjects":                         "http://h:8081/subjects",
		"write amqp://user:password@host:5672/":          "write amqp://user:password@host:5672/", // an example of ours
		"a://u:hunter2@://user:password@h":               "a://u:***@h",
		"postgres://user@h/d":                            "postgres://user@h/d",
	} {
		require.Equal(t, want, withoutPasswords(text))
	}
	require.Equal(t, hidden, shownURL("postgres://u:hunter%2@h/d"), "cannot be read")
	u, err := url.Parse("amqp://u:hunter2@h/")
	require.NoError(t, err)
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log := logConfig{Format: format}.loggerTo(&b)
		log.With("url", u.String()).Error("no way to "+u.String(), "error", fmt.Errorf("dial: %w", errors.New(u.String())), "parsed", u, "list", []string{u.String()})
		require.NotContains(t, b.String(), "hunter2")
		require.Equal(t, 5, strings.Count(b.String(), hidden), b.String())
	}
}

// secretsConfig has a secret in every way that there is; nobody answers at its addresses.
const secretsConfig = `database: {url: "postgres://u:hunter2-database@127.0.0.1:1/d?connect_timeout=1", password: "hunter2@/key"}
pipelines:
  - name: kafka
    kafka: {brokers: ["127.0.0.1:1"], username: u, password: "${file:SECRETFILE}"}
    wire: {format: confluent, registry: {url: "http://u:hunter2-registry@127.0.0.1:1"}}
  - name: rabbit
    rabbitmq: {url: "amqp://u:hunter2-rabbit@127.0.0.1:1/", password: "hunter2@/key", management: "http://u:hunter2-management@127.0.0.1:1"}
    wire: {format: confluent, registry: {url: "http://127.0.0.1:1", token: "${SECRETS_TOKEN}"}}
  - name: oauth
    kafka: {brokers: ["127.0.0.1:1"], oauth: {token_url: "http://127.0.0.1:1/token", client_id: relay, client_secret: hunter2-oauth}}
admin: {token: hunter2-admin-0123456789}
inboxes:
  - {name: stock, url: "host=127.0.0.1 port=1 user=u password=hunter2-inbox connect_timeout=1"}
`

// secretsArgs makes every command come as far as it can.
var secretsArgs = map[string][]string{
	"relay config check":     {"--config"},
	"relay config show":      {"--config"},
	"relay config reference": {},
	"relay dlq discard":      {"--all", "--reason", "r", "--inbox", "stock", "--config"},
	"relay dlq export":       {"--config"},
	"relay dlq list":         {"--inbox", "stock", "--config"},
	"relay dlq redrive":      {"--all", "--reason", "r", "--config"},
	"relay dlq show":         {"1", "--inbox", "host=127.0.0.1 port=x password=hunter2-typed", "--config"},
	"relay doctor":           {"--config"},
	"relay explain":          {"0199e6a4-7d3c-7c1e-9a54-1f0e4c6d2b7a", "--config"},
	"relay health":           {"--url", "http://u:hunter2-typed@127.0.0.1:1"},
	"relay migrate down":     {"--yes", "--database-url", "postgres://u:hunter2-typed@127.0.0.1:1/d?connect_timeout=1"},
	"relay migrate sql":      {"--database-url", "postgres://u:hunter2-typed@127.0.0.1:1/d"},
	"relay migrate status":   {},
	"relay migrate up":       {"--database-url", "postgres://u:hunter2-typed@127.0.0.1:port/d"},
	"relay pipeline drop":    {"kafka", "--yes", "--config"},
	"relay pipeline filter":  {"kafka", "--config"},
	"relay pipeline list":    {"--config"},
	"relay rebase":           {"--yes", "--config"},
	"relay replay":           {"--pipeline", "kafka", "--reason", "r", "--config"},
	"relay schema check":     {"SCHEMAS", "--registry", "http://u:hunter2-typed@127.0.0.1:port", "--topic", "t"},
	"relay schema decode":    {"--event", "0199e6a4-7d3c-7c1e-9a54-1f0e4c6d2b7a", "--config"},
	"relay schema register":  {"SCHEMAS", "--log", "postgres://u:hunter2-typed@127.0.0.1:1/d?connect_timeout=1"},
	"relay schema validate":  {"SCHEMAS"},
	"relay status":           {"--config"},
	"relay version":          {},
}

// No command prints a secret: not when all is well, not when it fails, not in its
// help, whatever is wrong in the configuration.
func TestNoCommandPrintsASecret(t *testing.T) {
	dir := shop(t)
	t.Setenv("SECRETS_TOKEN", "hunter2-token")
	t.Setenv("DATABASE_URL", "postgres://u:hunter2-environment@127.0.0.1:1/d?connect_timeout=1")
	t.Setenv("OUTBOXKIT_PIPELINES_1_WIRE_REGISTRY_PASSWORD", "") // as none
	good := strings.Replace(secretsConfig, "SECRETFILE", secretFileWith(t, "hunter2-file"), 1)
	configs := []string{
		good,
		strings.Replace(good, "pipelines:", "pipeline:", 1),
		strings.Replace(good, "postgres://", "postgres:://", 1),
		strings.Replace(good, "amqp://", "amqq://", 1),
		strings.Replace(good, "http://u:hunter2-registry@127.0.0.1:1", "http://u:hunter2-registry@127.0.0.1:port", 1),
		strings.Replace(good, `password: "${file`, `password: [hunter2-list], username: "${file`, 1),
		strings.Replace(good, `token: "`, `token: *hunter2-anchor, x: "`, 1),
	}
	leaves(newRoot(), func(cmd *cobra.Command) {
		name := cmd.CommandPath()
		if name == "relay run" {
			return // below
		}
		args, ok := secretsArgs[name]
		require.True(t, ok, "%s: say in secretsArgs how to call it", name)
		for i, text := range configs {
			if i > 0 && !strings.HasSuffix(strings.Join(args, " "), "--config") {
				continue
			}
			call := append(strings.Fields(name)[1:], args...)
			if len(args) > 0 && args[len(args)-1] == "--config" {
				call = append(call, writeConfig(t, text))
			}
			for j, arg := range call {
				call[j] = strings.Replace(arg, "SCHEMAS", filepath.Join(dir, "order.avsc"), 1)
			}
			for _, more := range [][]string{nil, {"--json"}, {"--help"}} {
				out, _ := runHere(t, append(call, more...)...)
				require.NotEmpty(t, out, call)
				require.NotContains(t, out, "hunter2", call)
			}
		}
	})
	out, code := runRelay(t, "config", "show", "--config", writeConfig(t, good))
	require.Zero(t, code, out)
	require.Contains(t, out, "postgres://u:***@127.0.0.1:1/d?connect_timeout=1")

	var log output
	run := command(t, &log, "run", "--config", writeConfig(t, good), "--log-level", "debug")
	require.NoError(t, run.Start())
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "127.0.0.1") }, 30*time.Second, 20*time.Millisecond, "it never told that nobody answers")
	require.NoError(t, run.Process.Signal(syscall.SIGTERM))
	_ = run.Wait()
	require.NotContains(t, log.String(), "hunter2")
}
