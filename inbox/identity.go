package inbox

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/dedup"
)

// identity is what a message is claimed by. A message without id is its place in
// the broker and its bytes: two equal ones in a queue, which has no offsets, are
// one. An id without source belongs to its topic.
func identity(d *brokers.Delivery) dedup.Key {
	m, o := &d.Message, d.Origin
	switch {
	case m.ID == "":
		sum := sha256.Sum256(m.Payload)
		return dedup.Key{
			Source: "outboxkit:origin",
			ID:     fmt.Sprintf("%q %q %d %d %q %x", o.Broker, o.Topic, o.Partition, o.Offset, m.Key, sum),
		}
	case m.Source == "":
		return dedup.Key{Source: "outboxkit:topic " + m.Topic, ID: m.ID}
	}
	return dedup.Key{Source: m.Source, ID: m.ID}
}

// keyHash is dead.key_hash.
func keyHash(m *brokers.Message) int64 {
	if m.Key == "" {
		return 0
	}
	var room [128]byte // on the stack, for what is usual
	sum := sha256.Sum256(append(append(append(room[:0], m.Topic...), 0), m.Key...))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // a bit pattern
}

// keyLock is the advisory lock of a key that has dead letters.
func keyLock(consumer int32, hash int64) int64 {
	return hash ^ int64(consumer)<<32 ^ 0x6465616420 // "dead ": apart from the claims' locks
}

// storable returns s as Postgres can store it: unchanged, or, where it is not
// text (a NUL, invalid UTF-8), as \x and its bytes in hex. What begins with \x
// is written so too, so that different texts stay different.
func storable(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, "\x00") && !strings.HasPrefix(s, `\x`) {
		return s
	}
	return `\x` + hex.EncodeToString([]byte(s))
}
