package main

import (
	"slices"
	"testing"

	"github.com/outboxkit/outboxkit/bench/peers"
)

func TestArrivalsCountWhatComesAgainAndOutOfOrder(t *testing.T) {
	a := &arrivals{at: map[int]int64{}, latest: map[string]int{}}
	for i, e := range []struct {
		seq int
		key string
	}{{1, "a"}, {3, "a"}, {2, "b"}, {2, "a"}, {3, "a"}, {4, "a"}} {
		a.see(peerPayload(e.seq, e.key), int64(i))
	}
	// 2 of b came, so 2 of a is the same event again; 3 came again.
	if a.duplicates != 2 || a.inversions != 0 || a.err != nil {
		t.Errorf("%d duplicates, %d inversions, error %v; want 2, 0, none", a.duplicates, a.inversions, a.err)
	}
	a.see(peerPayload(6, "a"), 9)
	a.see(peerPayload(5, "a"), 10)
	if a.duplicates != 2 || a.inversions != 1 {
		t.Errorf("%d duplicates, %d inversions after 6, 5; want 2, 1", a.duplicates, a.inversions)
	}
	if a.at[3] != 1 {
		t.Errorf("event 3 arrived at %d, want its first arrival, 1", a.at[3])
	}
	if n, _ := a.missing(map[int]int64{6: 0, 7: 0}); n != 1 {
		t.Errorf("%d missing of 6 and 7, want 1", n)
	}
	a.see([]byte("nonsense"), 11)
	if a.err == nil {
		t.Error("a record without number and key was taken")
	}
}

func TestRatiosAreAgainstTheBestOfEachRound(t *testing.T) {
	rate := byPeer{ours: {100, 90}, "debezium_default": {10, 30}, "debezium_tuned": {20, 15}, "watermill_tuned": {50, 50}}
	if got := rate.against("debezium", highest); !slices.Equal(got, []float64{5, 3}) {
		t.Errorf("rates against the best of each round: %v, want 5 and 3", got)
	}
	if got := rate.against("debezium", lowest); !slices.Equal(got, []float64{10, 6}) {
		t.Errorf("sizes against the least of each round: %v, want 10 and 6", got)
	}
	if got := rate.against("nobody", lowest); len(got) != 0 {
		t.Errorf("ratios to nobody: %v", got)
	}
}

func TestEveryPeersSettingHasAReason(t *testing.T) {
	for _, p := range []peers.Peer{&ourPeer{}, peers.Debezium{}, peers.Debezium{Tuned: true}, peers.Watermill{}, peers.Watermill{Tuned: true}} {
		seen := map[string]bool{}
		for _, s := range p.Settings() {
			if s.Why == "" || s.Value == "" || seen[s.Name] {
				t.Errorf("%s: %+v is empty or twice", p.Name(), s)
			}
			seen[s.Name] = true
		}
	}
}
