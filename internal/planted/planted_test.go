package planted_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/planted"
)

// The relay's binary knows nothing of the bugs, unless it was built for them.
func TestNormalBuildHasNoTrace(t *testing.T) {
	t.Parallel()
	require.Equal(t, "OUTBOXKIT_PLANT", planted.Env)
	for _, tag := range []string{"", "planted"} {
		binary := filepath.Join(t.TempDir(), "relay")
		out, err := exec.Command("go", "build", "-tags", tag, "-o", binary, "../../cmd/relay").CombinedOutput()
		require.NoError(t, err, "%s", out)
		code, err := os.ReadFile(binary)
		require.NoError(t, err)
		for _, text := range []string{"OUTBOXKIT_PLANT", "internal/planted.", "ack-before-commit", "gen_random_uuid() <> $"} {
			require.Equal(t, tag != "", bytes.Contains(code, []byte(text)), "%q in the build with tags %q", text, tag)
		}
	}
}
