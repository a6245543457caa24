package telemetry_test

import (
	"testing"

	"github.com/outboxkit/outboxkit/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
