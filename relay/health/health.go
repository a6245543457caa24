package health

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/outboxkit/outboxkit/relay"
)

// Relay is a relay of this process.
type Relay struct {
	Database string              // its name, where there are several
	Health   func() relay.Health // of relay.Relay
}

// Live answers 200 as long as the process can answer at all.
func Live() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
}

// Ready answers 200 if at least one relay has a valid lease from a Postgres that
// answers, and 503 if none has: one database of many that is away must not hold up
// a rollout for the others. The text names those that are not ready.
func Ready(relays ...Relay) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ready := 0
		var missing []string
		for _, r := range relays {
			if r.Health().Ready {
				ready++
			} else {
				missing = append(missing, r.Database)
			}
		}
		code := http.StatusOK
		if ready == 0 {
			code = http.StatusServiceUnavailable
		}
		text := fmt.Sprintf("%d of %d relays are ready", ready, len(relays))
		if missing = named(missing); len(missing) > 0 {
			text += "; not those of " + strings.Join(missing, ", ")
		}
		say(w, code, text)
	})
}

func named(list []string) (names []string) {
	for _, name := range list {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	fmt.Fprintln(w, text) //nolint:errcheck // who asked has gone
}

// Report is what [Progress] answers, as JSON.
type Report struct {
	// Stuck says that a pipeline of some relay is stuck.
	Stuck  bool          `json:"stuck"`
	Relays []RelayReport `json:"relays"`
}

// RelayReport is a relay's part of a [Report].
type RelayReport struct {
	Database string `json:"database,omitempty"`
	relay.Health
}

// Progress answers 200 with a [Report], whatever is in it. It holds the texts of
// errors, with the names of hosts and topics: it is for the operator.
func Progress(relays ...Relay) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		report := Report{Relays: []RelayReport{}}
		for _, r := range relays {
			h := r.Health()
			for _, p := range h.Pipelines {
				report.Stuck = report.Stuck || p.Stuck
			}
			report.Relays = append(report.Relays, RelayReport{Database: r.Database, Health: h})
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(report) // who asked has gone
	})
}
