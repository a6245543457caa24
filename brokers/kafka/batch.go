package kafka

import (
	"time"

	"github.com/IBM/sarama"
)

// item is one message on its way.
type item struct {
	call      *call
	index     int32
	record    *sarama.Record
	size      int   // at most, uncompressed
	timestamp int64 // milliseconds
}

// batch is what is sent and resolved as a whole.
type batch struct {
	items     []item
	size      int
	records   *sarama.RecordBatch
	uncertain bool // an attempt may have been appended
}

func newBatch(items []item, size int, conf *sarama.Config) *batch {
	first := items[0].timestamp
	last := first
	records := make([]*sarama.Record, len(items))
	for i, it := range items {
		it.record.OffsetDelta = int64(i)
		it.record.TimestampDelta = time.Duration(it.timestamp-first) * time.Millisecond
		records[i] = it.record
		last = max(last, it.timestamp)
	}
	return &batch{items: items, size: size, records: &sarama.RecordBatch{
		Version:          2,
		Codec:            conf.Producer.Compression,
		CompressionLevel: conf.Producer.CompressionLevel,
		FirstTimestamp:   time.UnixMilli(first),
		MaxTimestamp:     time.UnixMilli(last),
		LastOffsetDelta:  int32(len(items) - 1), //nolint:gosec // at most maxBatchRecords
		Records:          records,
	}}
}

// hasCaller reports whether somebody waits for any message of the batch.
func (b *batch) hasCaller() bool {
	for _, it := range b.items {
		if !it.call.isOver() {
			return true
		}
	}
	return false
}

// withoutCaller reports whether nobody waits for one of the messages any more.
func (b *batch) withoutCaller() bool {
	for _, it := range b.items {
		if it.call.isOver() {
			return true
		}
	}
	return false
}

// eachCall groups the items by call; those of one call stand together.
func (b *batch) eachCall(f func(*call, []item)) {
	for from := 0; from < len(b.items); {
		to := from + 1
		for to < len(b.items) && b.items[to].call == b.items[from].call {
			to++
		}
		f(b.items[from].call, b.items[from:to])
		from = to
	}
}
