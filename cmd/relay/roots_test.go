package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Go looks for the roots once, so it has to be a process that finds none.
func TestRootsWhereTheMachineHasNone(t *testing.T) {
	const envChild = "OUTBOXKIT_RELAY_WITHOUT_ROOTS"
	if os.Getenv(envChild) != "" {
		roots, err := x509.SystemCertPool()
		require.NoError(t, err)
		require.False(t, roots.Equal(x509.NewCertPool()), "no roots: every public certificate would be refused")
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	none := t.TempDir()
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestRootsWhereTheMachineHasNone$")
	cmd.Env = append(os.Environ(), envChild+"=1", "SSL_CERT_FILE="+none+"/none.pem", "SSL_CERT_DIR="+none)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}
