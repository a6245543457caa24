package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The committed lines are enough for all plots, which say what they show.
func TestPlotsOfTheCommittedLines(t *testing.T) {
	lines, err := os.ReadFile("../../docs/figures/effect.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "effect.jsonl"), lines, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"effect-latency.svg": "RabbitMQ p99.9", "effect-stages.svg": "2000/s", "effect-cost.svg": "relay: Postgres"} {
		svg, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(svg), text) {
			t.Errorf("%s does not show %q", file, text)
		}
	}
}

// A run of a part of the figures draws no plot with holes.
func TestMissingLinesAreNamed(t *testing.T) {
	dir := t.TempDir()
	line := `{"name":"effect_kafka_100_p50_ms","value":5,"unit":"ms","min":4,"max":6,"runs":[4,5,6]}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "effect.jsonl"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(dir); err == nil || !strings.Contains(err.Error(), "effect_kafka_500_p50_ms") {
		t.Fatalf("got %v, want the name of the missing line", err)
	}
}
