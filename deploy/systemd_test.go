package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unit is a copy of the unit with a program that is there.
func unit(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal("OUTBOXKIT_REQUIRE_SERVICES=1, but ", err, " (Debian: apt-get install systemd)")
		}
		t.Skip("needs systemd (Debian: apt-get install systemd): ", err)
	}
	text, err := os.ReadFile("systemd/outboxkit-relay.service")
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "outboxkit-relay.service")
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/relay", self)), 0o644))
	return path
}

func TestSystemdKnowsEverySetting(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit(t)).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NotContains(t, string(out), "outboxkit-relay", "about other units this machine may say what it likes")
}

// TestSystemdSandbox: systemd rates from 0 (nothing is allowed) to 10; most units of a
// distribution have 9.6.
func TestSystemdSandbox(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit(t)).CombinedOutput()
	require.NoError(t, err, string(out))
}
