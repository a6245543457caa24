package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/outboxkit/outboxkit/bench/peers"
)

// Figures of `make bench-peers`: the same work by outboxkit and by its peers, in
// turn, on the same Postgres and Kafka. What each reports is named
// peer_FIGURE_WHAT_PEER.
func peerFigures() []figure {
	return []figure{
		{"peer_drain", peerDrain},
		{"peer_latency_100", peerLatency(100)},
		{"peer_latency_500", peerLatency(500)},
		{"peer_latency_2000", peerLatency(2000)},
		{"peer_writers", peerWriters},
		{"peer_held", peerHeld},
		{"peer_recovery", peerRecovery},
	}
}

const ours = "outboxkit"

// peerList is whom BENCH_PEERS names, or everybody.
func peerList(e *env, more ...peers.Peer) ([]peers.Peer, error) {
	all := append([]peers.Peer{
		&ourPeer{}, peers.Debezium{}, peers.Debezium{Tuned: true}, peers.Watermill{}, peers.Watermill{Tuned: true},
	}, more...)
	chosen := os.Getenv("BENCH_PEERS")
	list := slices.DeleteFunc(all, func(p peers.Peer) bool { return !matches(p.Name(), strings.Split(chosen, ",")) })
	if len(list) == 0 {
		return nil, fmt.Errorf("BENCH_PEERS=%q matches no peer", chosen)
	}
	return list, e.out.settings(list)
}

// inTurn runs f for each peer in each round; another one begins each round. Who
// fails is left out from then on: the others' rounds count.
func inTurn(ctx context.Context, e *env, list []peers.Peer, f func(p peers.Peer) error) error {
	failed := map[string]bool{}
	var errs []error
	for round := range e.rounds {
		for i := range list {
			p := list[(i+round)%len(list)]
			if failed[p.Name()] || ctx.Err() != nil {
				continue
			}
			if err := f(p); err != nil {
				failed[p.Name()] = true
				errs = append(errs, fmt.Errorf("%s: %w", p.Name(), err))
				note("%s is left out from here on: %v", p.Name(), err)
			}
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// settings prints what each peer was told and why, once; as a table, what its
// shapes share once for all of them.
func (r *report) settings(list []peers.Peer) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, p := range list {
		if r.told[p.Name()] {
			continue
		}
		if r.told == nil {
			r.told = map[string]bool{}
		}
		r.told[p.Name()] = true
		if r.json {
			line, err := json.Marshal(map[string]any{"name": "peer_settings_" + p.Name(), "settings": p.Settings()})
			if err != nil {
				return err
			}
			fmt.Println(string(line))
			continue
		}
		_, _ = fmt.Fprintf(w, "%s\t\t\n", p.Name())
		for _, s := range p.Settings() {
			if key := fmt.Sprintf("%T %s=%s", p, s.Name, s.Value); !r.told[key] { // not again for its other shapes
				r.told[key] = true
				_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\n", s.Name, s.Value, s.Why)
			}
		}
	}
	return w.Flush()
}

// byPeer holds runs of one quantity.
type byPeer map[string][]float64

func (b byPeer) add(p peers.Peer, v float64) { b[p.Name()] = append(b[p.Name()], v) }

// report adds each peer's runs as prefix_PEER.
func (b byPeer) report(e *env, prefix, unit string, list []peers.Peer) {
	for _, p := range list {
		e.out.add(prefix+"_"+p.Name(), unit, b[p.Name()])
	}
}

// against divides our runs by those of the peers whose name begins with prefix,
// in each round by the one that better finds the best.
func (b byPeer) against(prefix string, better func(...float64) float64) []float64 {
	var best []float64
	for name, runs := range b {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if best == nil {
			best = slices.Clone(runs)
		}
		for i := range min(len(runs), len(best)) {
			best[i] = better(best[i], runs[i])
		}
	}
	return ratios(b[ours], best)
}

func highest(v ...float64) float64 { return slices.Max(v) }
func lowest(v ...float64) float64  { return slices.Min(v) }
