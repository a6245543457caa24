package faults_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/faults"
	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/services/apicurio"
	"github.com/outboxkit/outboxkit/internal/services/kafka"
	"github.com/outboxkit/outboxkit/internal/services/rabbitmq"
)

// TestPreviousReleaseBesideThisOne upgrades as docs/upgrading.md says, under traffic:
// the tables first, then some processes of each kind; after that, processes go on being
// upgraded, taken back and killed. Services, relays and consumers of both releases
// share databases, leases, topics and groups, as roles that have the grants alone.
func TestPreviousReleaseBesideThisOne(t *testing.T) {
	needServers(t)
	dir := t.TempDir()
	err := faults.BuildRelease(t.Context(), faults.Previous, dir, t.Output())
	if errors.Is(err, faults.ErrShallow) {
		t.Skip(err) // also where nothing may be skipped: there is nothing to install that would help
	}
	if errors.Is(err, faults.ErrNoClone) {
		missing(t, err)
	}
	require.NoError(t, err)
	report, err := faults.Run(context.Background(), faults.Config{
		Duration: 35 * time.Second, Seed: 1, Dir: t.TempDir(), Beside: dir, Build: t.Output(),
		Only:  []string{"redeploy service", "redeploy relay", "redeploy consumer", "kill relay", "kill consumer"},
		Watch: func(p faults.Progress) { logProgress(t, p) },
	})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.Empty(t, history.Report(report.Violations))
	require.NotEmpty(t, report.Faults)
	releases := []string{"previous", "this"}
	for _, over := range []string{"kafka", "rabbitmq"} {
		for _, wrote := range releases {
			for _, published := range releases {
				for _, handled := range releases {
					way := faults.Way(over, wrote, published, handled)
					require.Positive(t, report.Numbers[way], way)
				}
			}
		}
	}
}

func TestReleaseWithoutPrograms(t *testing.T) {
	t.Parallel()
	_, err := faults.Run(t.Context(), faults.Config{Duration: time.Minute, Beside: t.TempDir()})
	require.ErrorContains(t, err, "Config.Beside lacks a program")
}

func logProgress(t *testing.T, p faults.Progress) {
	if p.Event != "" {
		t.Logf("%s %s", p.Elapsed.Round(time.Second), p.Event)
	}
}

func needServers(t *testing.T) {
	t.Helper()
	if err := errors.Join(kafka.Available(), rabbitmq.Available(), apicurio.Available()); err != nil {
		missing(t, err)
	}
}

// missing skips the test, or fails it where nothing may be skipped.
func missing(t *testing.T, reason error) {
	t.Helper()
	if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
		t.Fatal("OUTBOXKIT_REQUIRE_SERVICES=1, but ", reason)
	}
	t.Skip(reason)
}
