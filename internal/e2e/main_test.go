package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// These turn the test binary into a consumer process, which can be killed as a
// real one can.
const (
	envConsumer = "OUTBOXKIT_E2E_CONSUMER"
	envMember   = "OUTBOXKIT_E2E_MEMBER"
)

func TestMain(m *testing.M) {
	for env, run := range map[string]func(string) error{envConsumer: consume, envMember: runMember} {
		if spec := os.Getenv(env); spec != "" {
			if err := run(spec); err != nil {
				fmt.Fprintln(os.Stderr, "consumer:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	pgtest.Main(m)
}
