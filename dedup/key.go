package dedup

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Key is the identity of what may be handled once: the pair, never the ID
// alone, for two sources may both say "1".
type Key struct {
	Source string // who drew the ID; may be empty
	ID     string // any string; a UUIDv7 in its usual text form is cheapest
}

// eventKey is how a Key is stored.
type eventKey struct {
	uuid  uuid.UUID
	time  time.Time // time in the id; zero if foreign
	timed bool      // the id tells its day
}

// stored returns the UUID that stands for k in the tables. Always a hash of
// source and id, so that a source cannot use up an id of another's. Where the id
// is a UUIDv7 of a trusted source and not from before since, its first 48 bits,
// the time, are kept: they choose the slot, and neighbours in time stay
// neighbours in the index, which is what keeps claims fast with millions of rows.
// 74 bits of hash remain within one millisecond.
func (k Key) stored(trusted bool, since time.Time) eventKey {
	id, isV7 := parseV7(k.ID)
	text := k.ID
	if isV7 {
		text = strings.ToLower(k.ID) // upper and lower case are the same UUID
	}
	var room [128]byte // on the stack, for what is usual
	both := append(append(append(room[:0], k.Source...), 0), text...)
	sum := sha256.Sum256(both)
	var key eventKey
	copy(key.uuid[:], sum[:])
	version := byte(8) // RFC 9562: custom
	if isV7 && trusted {
		at := time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)) //nolint:gosec // 48 bits
		if !at.Before(since) {
			copy(key.uuid[:6], id[:6])
			version, key.timed, key.time = 7, true, at
		}
	}
	key.uuid[6] = key.uuid[6]&0x0f | version<<4
	key.uuid[8] = key.uuid[8]&0x3f | 0x80
	return key
}

// foreign is what the key is where no time in an id counts.
func (k Key) foreign() eventKey { return k.stored(false, time.Time{}) }

// parseV7 accepts the usual text form alone; uuid.Parse would accept others,
// which are foreign strings here.
func parseV7(s string) (uuid.UUID, bool) {
	if len(s) != 36 {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil && id.Version() == 7 && id.Variant() == uuid.RFC4122
}

// slot is the partition of seen that remembers an id of that time.
func (k eventKey) slot() int64 { return k.time.Unix() / secondsPerDay % slots }

// lock is the advisory lock under which a foreign key is claimed. It is the
// key's own bits, mixed with the consumer, so that locks of several keys taken
// in the order of the keys are in one order for everybody.
func (k eventKey) lock(consumer int32) int64 {
	var b [20]byte
	copy(b[:], k.uuid[:])
	binary.BigEndian.PutUint32(b[16:], uint32(consumer)) //nolint:gosec // a bit pattern
	sum := sha256.Sum256(b[:])
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // a bit pattern
}
