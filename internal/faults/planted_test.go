//go:build faults

package faults_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/faults"
	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/planted"
)

// directed says which faults a planted bug cannot stand. They all belong to the
// plan of a normal run; here they come one after the other, so that a minute is
// enough.
var directed = []struct {
	bug  planted.Bug
	only []string
	want history.Kind
}{
	{planted.NoFencing, []string{"freeze relay"}, history.Overlap},
	{planted.AckBeforeCommit, []string{"kill consumer"}, history.Loss},
	{planted.NoSnapshotFilter, []string{"redeploy service"}, history.Loss}, // slow transactions are always there
	{planted.PositionBeforeConfirm, []string{"kill relay behind a half-open link"}, history.Loss},
	{planted.NoReturnListener, []string{"unroutable"}, history.Loss},
	{planted.TruncationWithoutLock, []string{"late commit"}, history.Loss},
	{planted.NoIncarnationCheck, []string{"promote asynchronous"}, history.Loss},
}

// TestPlantedBugsAreCaught is the suite's own test: each bug is caught within a
// minute of faults, and the same faults find nothing where there is no bug.
func TestPlantedBugsAreCaught(t *testing.T) {
	var all []string
	for _, c := range directed {
		all = append(all, c.only...)
		t.Run(string(c.bug), func(t *testing.T) {
			began := time.Now()
			report := run(t, faults.Config{Duration: 45 * time.Second, Rest: 20 * time.Second, Plant: string(c.bug), Only: c.only})
			t.Logf("%d violations in a run of %s, %v: %s", len(report.Violations), time.Since(began).Round(time.Second), report.Faults, history.Report(report.Violations))
			require.True(t, slices.ContainsFunc(report.Violations, func(v history.Violation) bool { return v.Kind == c.want }), "no %s", c.want)
		})
	}
	t.Run("none", func(t *testing.T) {
		report := run(t, faults.Config{Duration: 2 * time.Minute, Only: all})
		require.Empty(t, report.Problems)
		require.Empty(t, history.Report(report.Violations))
		require.Len(t, report.Faults, len(all), "each of %s", strings.Join(all, ", "))
	})
}

func run(t *testing.T, cfg faults.Config) faults.Report {
	t.Helper()
	cfg.Seed, cfg.Dir = 1, t.TempDir()
	report, err := faults.Run(context.Background(), cfg)
	require.NoError(t, err)
	return report
}
