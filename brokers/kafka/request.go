package kafka

import (
	"cmp"
	"fmt"

	"github.com/outboxkit/outboxkit/brokers"
)

const (
	// defaultRequestBytes bounds a request of several batches unless the user does; a
	// larger single batch goes alone.
	defaultRequestBytes = 8 << 20
	// minRequestBytes leaves room for an event.
	minRequestBytes = 64 << 10

	// requestOverhead is the most that a request has of its own, besides the client's name.
	requestOverhead = 64
	// blockOverhead is the most that a request has for each batch besides the batch and
	// the topic's name, what compression adds to a short one among it.
	blockOverhead = 128
)

// requestRoom returns the most bytes that the batches of a request may take together.
func (c Config) requestRoom() int {
	return cmp.Or(c.MaxRequestBytes, defaultRequestBytes) - requestOverhead - len(c.ClientID)
}

// onWire returns the most bytes that a batch takes in a request. What cannot be
// compressed is stored by every codec, which adds far less than a thousandth.
func onWire(a *attempt) int {
	return a.batch.size + a.batch.size>>10 + blockOverhead + len(a.topic)
}

// batchRoom returns the most bytes that a batch of a topic may have so that a request
// has room for it; false if there is no such bound.
func (c Config) batchRoom(topic string) (int, bool) {
	room := c.requestRoom() - blockOverhead - len(topic)
	return room - (room+1023)>>10, c.MaxRequestBytes > 0
}

// fits returns an error for a message that no request has room for. To send it would
// cost the connection, again and again.
func (c Config) fits(topic string, size int) error {
	room, bounded := c.batchRoom(topic)
	if !bounded || batchOverhead+size <= room {
		return nil
	}
	return &brokers.Error{Class: brokers.ClassRejected, Topic: topic, Err: fmt.Errorf("about %d bytes before compression do not fit into a request of %d (Config.MaxRequestBytes)", size, c.MaxRequestBytes)}
}
