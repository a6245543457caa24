package telemetry_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/outboxkit/outboxkit/telemetry"
)

const observability = "../deploy/observability/"

// promQL are the queries of the dashboard and of the alerts, with what they are.
func promQL(t *testing.T) (queries map[string]string) {
	t.Helper()
	queries = map[string]string{}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	data, err := os.ReadFile(observability + "rules.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &rules))
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			queries["alert "+r.Alert] = r.Expr
		}
	}
	type panel struct {
		Title   string
		Targets []struct{ Expr string }
	}
	var dashboard struct {
		Panels     []panel
		Templating struct {
			List []struct {
				Name, Definition string
			}
		}
	}
	data, err = os.ReadFile(observability + "dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &dashboard))
	for n, p := range dashboard.Panels {
		for i, target := range p.Targets {
			queries[fmt.Sprintf("panel %d, %s, query %d", n, p.Title, i)] = target.Expr
		}
	}
	for _, v := range dashboard.Templating.List {
		queries["variable "+v.Name] = v.Definition
	}
	require.Greater(t, len(queries), 40)
	return queries
}

var (
	quoted = regexp.MustCompile(`"[^"]*"`)
	word   = regexp.MustCompile(`[a-z_]+`)
)

// Every metric that the dashboard or an alert names is in a scrape of a live relay
// and consumer, and every attribute is one of a metric in the same query.
func TestDashboardAndAlertsNameWhatIsExported(t *testing.T) {
	t.Parallel()
	labels := map[string][]string{} // of each series, by name
	for _, m := range telemetry.Metrics() {
		var list []string
		for _, a := range m.Attributes {
			list = append(list, strings.ReplaceAll(a, ".", "_"))
		}
		labels[m.Prometheus()] = list
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if m.Kind == telemetry.Histogram {
				labels[m.Prometheus()+suffix] = list
			}
		}
	}
	named := map[string]string{} // metrics, and a query that names it
	for where, query := range promQL(t) {
		var metrics, attributes []string
		for _, w := range word.FindAllString(quoted.ReplaceAllString(query, ""), -1) {
			switch _, isMetric := labels[w]; {
			case isMetric:
				metrics = append(metrics, w)
				named[w] = where
			case strings.HasPrefix(w, "outboxkit_"), strings.HasPrefix(w, "messaging_"), strings.HasPrefix(w, "db_client_"), w == "error_type":
				attributes = append(attributes, w)
			}
		}
		if query != "" {
			require.NotEmpty(t, metrics, "%s: %s", where, query)
		}
		for _, a := range attributes {
			require.True(t, slices.ContainsFunc(metrics, func(m string) bool { return slices.Contains(labels[m], a) }), "%s: %s is neither a metric nor an attribute of one in %s", where, a, query)
		}
	}

	w := newWorld(t)
	w.place("o-1")
	var missing []string
	require.Eventually(t, func() bool {
		missing = nil
		samples := w.samples()
		for m, where := range named {
			if !slices.ContainsFunc(samples, func(s sample) bool { return s.name == m }) {
				missing = append(missing, m+" of "+where)
			}
		}
		return len(missing) == 0
	}, patience, tick, "not in the scrape: %v", &missing)
}

// promtool checks the rules, and that each fires when it should and not otherwise.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal("OUTBOXKIT_REQUIRE_SERVICES=1, but there is no promtool: it is in Debian's package prometheus")
		}
		t.Skip("no promtool: it is in Debian's package prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Clean(observability)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %v\n%s", args, out)
	}
}

// Every alert has both tests.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(observability + "rules_test.yml")
	require.NoError(t, err)
	tests := string(data)
	n := 0
	for where := range promQL(t) {
		alert, ok := strings.CutPrefix(where, "alert ")
		if !ok {
			continue
		}
		n++
		require.Contains(t, tests, "name: "+alert+" fires\n")
		require.Contains(t, tests, "name: "+alert+" is quiet\n")
	}
	require.Greater(t, n, 10)
	guide, err := os.ReadFile(doc)
	require.NoError(t, err)
	for where := range promQL(t) {
		if alert, ok := strings.CutPrefix(where, "alert "); ok {
			require.Contains(t, string(guide), "| `"+alert+"` |", "the documentation lists every alert")
		}
	}
}
