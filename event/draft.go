package event

import (
	"time"
)

// Draft is an event that is about to be written. Make one with [Type.New] and
// set the optional fields on it; their zero values are right for most events.
type Draft struct {
	// Type says what kind of event this is. Set by Type.New.
	Type Info
	// Data is the value that the type's codec encodes. Set by Type.New.
	Data any
	// Tombstone writes a NULL payload instead of Data. Set by Type.Tombstone.
	Tombstone bool

	// Key is the ordering key; Type.New fills it from Type.Key. At most 1,024 bytes.
	Key string
	// Topic overrides the type's topic. Default: Type.Topic.
	Topic string
	// ID identifies the event for ever, across retries and replays: a UUIDv7 in
	// its usual text form. Default: a new one.
	ID string
	// Time is when it happened. Default: the time of the write.
	Time time.Time
	// CorrelationID groups everything that one request caused. Default: none, or
	// the correlation id found in the context (see [WithCause]).
	CorrelationID string
	// CausationID is the id of the event that caused this one. Default: none, or
	// the event found in the context (see [WithCause]).
	CausationID string
	// Headers travel beside the data as plain message headers. Names are
	// lower-case letters, digits, '-', '_' and '.'; names that the wire formats
	// use themselves (ce_*, cloudEvents*, content-type, …) are refused.
	Headers map[string]string
}
