package main

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/certtest"
)

const plainConfig = "database: {url: postgres://h/d}\npipelines: [{name: x, kafka: {brokers: [localhost:9092]}}]\n"

func TestAdminConfig(t *testing.T) {
	t.Setenv("RELAY_TEST_TOKEN", "0123456789abcdef-hunter2")
	for text, want := range map[string]string{
		"":                               "",
		"admin: {listen: off}":           "",
		"admin: {listen: 127.0.0.1:0}":   "",
		"admin: {listen: 'localhost:1'}": "",
		"admin: {listen: '0.0.0.0:1', token: '${RELAY_TEST_TOKEN}', tls: {cert_file: c, key_file: k}}": "",
		"admin: {listen: '0.0.0.0:1', tls: {cert_file: c, key_file: k, client_ca_file: ca}}":           "",

		"admin: {listen: '0.0.0.0:1', token: '${RELAY_TEST_TOKEN}'}":    `relay.yaml:3: admin.listen: "0.0.0.0:1" can be reached from elsewhere without TLS (set tls.cert_file and tls.key_file, and token or tls.client_ca_file; or listen on 127.0.0.1)`,
		"admin: {listen: ':1', tls: {cert_file: c, key_file: k}}":       `relay.yaml:3: admin.listen: ":1" can be reached from elsewhere by everybody`,
		"admin: {token: hunter2}":                                       `relay.yaml:3: admin.token: has only 7 bytes`,
		"admin: {tls: {cert_file: c}}":                                  `relay.yaml:3: admin.tls.cert_file: and tls.key_file belong together`,
		"admin: {tls: {client_ca_file: c}}":                             `relay.yaml:3: admin.tls.client_ca_file: is set without TLS`,
		"admin: {listen: somewhere}":                                    `relay.yaml:3: admin.listen: "somewhere" is not host:port`,
		"admin: {token: '${RELAY_TEST_NO_SUCH}'}":                       `relay.yaml:3: admin.token: environment variable RELAY_TEST_NO_SUCH is not set`,
		"admin: {listen: '0.0.0.0:1', tls: }":                           `relay.yaml:3: admin.tls: is empty`,
		"admin: {tls: {cert_file: c, key_file: k, ca_file: somewhere}}": `relay.yaml:3: unknown field "ca_file"`,
	} {
		_, err := loadConfig(writeConfig(t, plainConfig+text+"\n"))
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestAdminListener(t *testing.T) {
	t.Parallel()
	var out output
	log := slog.New(slog.NewTextHandler(&out, nil))
	metrics := http.NotFoundHandler()
	a, err := startAdmin(t.Context(), adminConfig{Listen: "127.0.0.1:0"}, metrics, nil, log)
	require.NoError(t, err)
	address := listeners(out.String())["admin.listen"]
	code, _ := fetch(t, address+"/livez")
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, a.Close())
	_, err = net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	require.Error(t, err, "nothing is left behind")

	dir := t.TempDir()
	unreadable := &adminTLSConfig{CertFile: certtest.Write(t, dir, "c", nil), KeyFile: certtest.Write(t, dir, "k", nil)}
	_, err = startAdmin(t.Context(), adminConfig{Listen: "127.0.0.1:0", TLS: unreadable}, metrics, nil, log)
	require.ErrorContains(t, err, "tls: failed to find any PEM data in certificate input")
}

// The token guards all but what probes need.
func TestTokenGuardsTheListener(t *testing.T) {
	t.Parallel()
	var out output
	a, err := startAdmin(t.Context(), adminConfig{Listen: "127.0.0.1:0", Token: "0123456789abcdef", Probes: "127.0.0.1:0"},
		http.NotFoundHandler(), nil, slog.New(slog.NewTextHandler(&out, nil)))
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	found := listeners(out.String())
	for path, want := range map[string]int{
		"/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/metrics": http.StatusUnauthorized, "/progress": http.StatusUnauthorized, "/": http.StatusUnauthorized,
	} {
		code, _ := fetch(t, found["admin.listen"]+path)
		require.Equal(t, want, code, path)
	}
	for path, want := range map[string]int{
		"/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/metrics": http.StatusNotFound, "/progress": http.StatusNotFound,
	} {
		code, _ := fetch(t, found["admin.probes"]+path)
		require.Equal(t, want, code, path)
	}
}

// A relay does not start on an address that others reach, and says what to do.
func TestUnsafeAdminDoesNotStart(t *testing.T) {
	t.Parallel()
	out, code := runRelay(t, "run", "--config", writeConfig(t, plainConfig+"admin: {listen: '0.0.0.0:0'}\n"))
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "can be reached from elsewhere without TLS (set tls.cert_file")
}
