package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/outboxkit/outboxkit/"

// Import path prefixes.
var (
	// Not all of franz-go: its pkg/sr is an HTTP client of schema registries, a
	// module of its own without dependencies.
	brokerClients = []string{"github.com/IBM/sarama", "github.com/rabbitmq/amqp091-go", "github.com/twmb/franz-go/pkg/kgo", "github.com/twmb/franz-go/pkg/kfake", "github.com/twmb/franz-go/pkg/kmsg"}
	adapters      = []string{module + "brokers/kafka", module + "brokers/rabbitmq"}
	avro          = []string{"github.com/hamba/avro"}
	telemetry     = []string{"go.opentelemetry.io", "github.com/prometheus", module + "telemetry"}
	commandLine   = []string{"github.com/spf13", "github.com/knadh/koanf", "github.com/go-viper/mapstructure"}
	testLibraries = []string{"github.com/stretchr/testify", "pgregory.net/rapid", "testing", module + "internal/pgtest", module + "internal/svctest", module + "internal/services"}
	kits          = []string{module + "outbox/outboxtest", module + "inbox/inboxtest", module + "postgrestest", module + "brokers/brokertest", module + "dedup/deduptest"}
	ownPostgres   = []string{"github.com/fergusstrange/embedded-postgres", module + "internal/pgtest", module + "internal/services", module + "postgrestest"}
	engines       = []string{module + "relay", module + "inbox"}
	// Where metrics and spans go is for whoever runs the process to choose.
	telemetrySDKs = []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/contrib", "github.com/prometheus", module + "internal/otelexport"}
)

// rules say for a package and those below it what they must never import,
// directly or through others; forTests is what their tests must not import
// either.
var rules = []struct {
	packages  []string
	forbidden []string
	forTests  []string
}{
	{
		packages:  []string{"event", "outbox", "inbox", "relay", "dedup"},
		forbidden: slices.Concat(brokerClients, adapters, avro, telemetry, commandLine, testLibraries, kits),
		forTests:  slices.Concat(brokerClients, adapters), // a service's go.sum would grow by them
	},
	// Who has a Postgres for tests builds no other: that is postgrestest's.
	{packages: []string{"outbox/outboxtest", "inbox/inboxtest"}, forbidden: slices.Concat(brokerClients, adapters, avro, telemetry, ownPostgres)},
	{packages: []string{"postgrestest"}, forbidden: slices.Concat(brokerClients, adapters, avro, telemetry, engines)},
	{packages: []string{"brokers/kafka", "brokers/rabbitmq"}, forbidden: slices.Concat(engines, testLibraries, kits)},
	// What every adapter imports costs none of them a library of another's.
	{packages: []string{"certs"}, forbidden: slices.Concat(brokerClients, adapters, engines, avro, telemetry, testLibraries)},
	{packages: []string{"telemetry"}, forbidden: slices.Concat(brokerClients, adapters, avro, telemetrySDKs, testLibraries, kits)},
	{packages: []string{"schema/json", "schema/registry"}, forbidden: avro}, // hamba works behind the guard of schema/avro only
	{packages: []string{"internal/page"}, forbidden: slices.Concat(brokerClients, adapters, avro, telemetry, testLibraries, kits)},
	{packages: []string{"schema"}, forbidden: slices.Concat(brokerClients, adapters, engines, telemetry, testLibraries)},
}

// exempt are test helpers, which import test libraries by nature: only rules that
// name them concern them.
var exempt = []string{"dedup/deduptest", "brokers/brokertest", "outbox/outboxtest", "inbox/inboxtest"}

// onlyStandardLibrary are the packages that sharing a type costs nothing, and the
// checker and the model, which must not share a mistake with what they judge.
var onlyStandardLibrary = []string{"event", "brokers", "certs", "internal/planted", "internal/history", "internal/model"}

func TestForbiddenImports(t *testing.T) {
	all := list(t)
	for _, rule := range rules {
		for _, name := range rule.packages {
			for _, p := range all {
				if !within(p.ImportPath, module+name) || isExempt(p.ImportPath) && !slices.Contains(exempt, name) || isTest(p) {
					continue
				}
				for _, d := range p.Deps {
					require.Falsef(t, matches(d, rule.forbidden), "%s depends on %s: go list -deps ./%s", p.ImportPath, d, name)
				}
			}
		}
	}
}

func TestForbiddenTestImports(t *testing.T) {
	all := list(t)
	for _, rule := range rules {
		for _, name := range rule.packages {
			for _, p := range all {
				if !strings.HasSuffix(p.ImportPath, ".test") || !within(strings.TrimSuffix(p.ImportPath, ".test"), module+name) {
					continue
				}
				for _, d := range p.Deps {
					require.Falsef(t, matches(d, rule.forTests), "the tests of %s depend on %s: go list -deps -test ./%s (what needs a broker belongs into internal/e2e)", name, d, name)
				}
			}
		}
	}
}

func TestSharedVocabularyImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, p := range list(t) {
		if !slices.Contains(onlyStandardLibrary, strings.TrimPrefix(p.ImportPath, module)) || isTest(p) {
			continue
		}
		for _, d := range p.Deps {
			first, _, _ := strings.Cut(d, "/")
			require.NotContainsf(t, first, ".", "%s depends on %s", p.ImportPath, d)
		}
	}
}

// TestPgtestNeedsNoBroker keeps the rule for tests above possible.
func TestPgtestNeedsNoBroker(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"internal/pgtest" {
			continue
		}
		for _, d := range p.Deps {
			require.False(t, matches(d, slices.Concat(brokerClients, adapters)), "internal/pgtest depends on %s", d)
		}
	}
}

type goPackage struct {
	ImportPath string
	Dir        string
	ForTest    string
	Deps       []string
}

// list returns the module's packages with all that they depend on, and their
// test binaries, whose import paths end in ".test".
func list(t *testing.T) (packages []goPackage) {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-test", "-json=ImportPath,Dir,ForTest,Deps", module+"...")
	out, err := cmd.Output()
	require.NoError(t, err)
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, packages)
			return packages
		}
		require.NoError(t, err)
		_, err = os.ReadDir(p.Dir) // tells go test that a change there makes a cached result stale
		require.NoError(t, err)
		packages = append(packages, p)
	}
}

// isTest is true of test binaries and of what is compiled only for them.
func isTest(p goPackage) bool { return p.ForTest != "" || strings.HasSuffix(p.ImportPath, ".test") }

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// matches ignores the " [pkg.test]" that go list appends to what is compiled
// anew for a test.
func matches(path string, parents []string) bool {
	path, _, _ = strings.Cut(path, " ")
	return slices.ContainsFunc(parents, func(parent string) bool { return within(path, parent) })
}

func isExempt(path string) bool {
	return slices.ContainsFunc(exempt, func(e string) bool { return within(path, module+e) })
}
