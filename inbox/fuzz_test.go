package inbox

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outboxkit/outboxkit/brokers"
)

// FuzzEnvelope: whatever a message says of itself, Postgres can store it, different
// texts stay different, and its key is one number.
func FuzzEnvelope(f *testing.F) {
	f.Add("id", "/shop", "orders", "k", []byte("x"))
	f.Add("", "", "", "", []byte(nil))
	f.Add("\x00", "\xff", `\x00`, `\xff`, []byte("\x00"))
	f.Fuzz(func(t *testing.T, id, source, topic, key string, payload []byte) {
		m := brokers.Message{ID: id, Source: source, Topic: topic, Key: key, Payload: payload}
		claimed := identity(&brokers.Delivery{Message: m})
		if claimed.ID == "" || claimed.Source == "" {
			t.Fatalf("no identity: %+v", claimed)
		}
		texts := []string{id, source, topic, key}
		for i, a := range texts {
			stored := storable(a)
			if !utf8.ValidString(stored) || strings.Contains(stored, "\x00") {
				t.Fatalf("Postgres cannot store %q of %q", stored, a)
			}
			for _, b := range texts[:i] {
				if (storable(b) == stored) != (a == b) {
					t.Fatalf("%q and %q are stored as %q", a, b, stored)
				}
			}
		}
		if (keyHash(&m) == 0) != (key == "") {
			t.Fatalf("key %q has hash %d", key, keyHash(&m))
		}
	})
}
