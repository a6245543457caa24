//go:build planted

package planted_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/planted"
)

const asked = "OUTBOXKIT_TEST_PLANTED"

// TestIs asks processes of its own: a process has one bug for its life.
func TestIs(t *testing.T) {
	if os.Getenv(asked) != "" {
		planted.Is(planted.NoFencing)
		return
	}
	if b := planted.Bug(os.Getenv(planted.Env)); b != "" {
		t.Skip("this process has a bug")
	}
	for _, b := range planted.Bugs() {
		require.False(t, planted.Is(b))
	}
	for plant, fine := range map[string]bool{"": true, "no-fencing": true, "no-fence": false} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestIs$")
		cmd.Env = append(os.Environ(), asked+"=1", planted.Env+"="+plant)
		out, err := cmd.CombinedOutput()
		require.Equal(t, fine, err == nil, "%s: %s", plant, out)
	}
}
