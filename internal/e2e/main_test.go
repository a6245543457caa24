package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

// envConsumer turns the test binary into a consumer process, which can be
// killed as a real one can.
const envConsumer = "OUTBOXKIT_E2E_CONSUMER"

func TestMain(m *testing.M) {
	if spec := os.Getenv(envConsumer); spec != "" {
		if err := consume(spec); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}
