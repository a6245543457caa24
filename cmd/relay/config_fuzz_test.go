package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzConfig: no file makes the relay panic, and every complaint names the file. What
// is accepted can be used.
func FuzzConfig(f *testing.F) {
	f.Setenv("RELAY_TEST_PASSWORD", "x")
	f.Setenv("CERTS", "/nowhere")
	for _, seed := range []string{
		goodConfig, manyDatabases, plainConfig, securedConfig, "", "a: [", "- x", "database: {url: x}\ndatabases: []", "pipelines: [{}, {name: x}]",
		"x: &a [*a]", "admin: {listen: ':1', tls: }", "hide: [a..b]", "inboxes: [{url: x, wire: {format: confluent}}]", "---\n---\n", "\xff\xfe", "? {a: b}\n: c",
	} {
		f.Add(seed)
	}
	path := filepath.Join(f.TempDir(), "relay.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/dev") || strings.Contains(text, "/proc") {
			return // files without an end
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := loadConfig(path)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if strings.HasPrefix(line, path) {
					return
				}
			}
			t.Fatalf("no file named: %v", err)
		}
		for _, d := range c.each() {
			for _, p := range d.Pipelines {
				if p.Kafka == nil && p.RabbitMQ == nil {
					t.Fatalf("accepted, but no broker: %q", text)
				}
				if p.Kafka != nil {
					err = p.Kafka.config(nil).Validate()
				} else {
					err = p.RabbitMQ.config(nil).Validate()
				}
				if err != nil {
					t.Fatalf("accepted, but: %v", err)
				}
			}
		}
	})
}
