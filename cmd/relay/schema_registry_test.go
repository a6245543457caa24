package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// runHere runs a command in this process: a process of its own takes a second.
func runHere(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return runIn(t, "", args...)
}

func runIn(t *testing.T, stdin string, args ...string) (string, int) {
	t.Helper()
	var out output
	root := newRoot()
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		return out.String() + "relay: " + explained(err) + "\n", exitCode(err)
	}
	return out.String(), 0
}

func setRegistryMode(t *testing.T, url, subject, mode string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/config/"+subject, strings.NewReader(`{"compatibility":"`+mode+`"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}
