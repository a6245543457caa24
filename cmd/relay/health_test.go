package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHealthAsksTheRelay(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "postgres: connection refused", http.StatusServiceUnavailable)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	out, code := runRelay(t, "health", "live", "--url", server.URL+"/")
	require.Zero(t, code, out)
	require.Equal(t, "ok\n", out)
	for _, args := range [][]string{{"health"}, {"health", "ready"}} {
		out, code = runRelay(t, append(args, "--url", server.URL)...)
		require.NotZero(t, code)
		require.Contains(t, out, "503 Service Unavailable: postgres: connection refused")
	}
	out, code = runRelay(t, "health", "lively", "--url", server.URL)
	require.NotZero(t, code)
	require.Contains(t, out, `"lively" is not known: use live or ready`)
	server.Close()
	out, code = runRelay(t, "health", "--url", server.URL)
	require.NotZero(t, code)
	require.Contains(t, out, "no relay answers")
}
