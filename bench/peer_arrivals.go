package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// peerPayload is 300 bytes that begin with the event's number and its key, so that
// every peer's records can be told apart in the same way.
func peerPayload(seq int, key string) []byte {
	b := fmt.Appendf(make([]byte, 0, 300), "%010d %s ", seq, key)
	return append(b, bytes.Repeat([]byte{'x'}, 300-len(b))...)
}

// arrivals notes when a consumer first sees each event, which come again, and
// which came before an earlier one of their key.
type arrivals struct {
	consumer sarama.Consumer
	parts    []sarama.PartitionConsumer
	wg       sync.WaitGroup

	mu         sync.Mutex
	at         map[int]int64 // event: Unix nanoseconds
	latest     map[string]int
	duplicates int
	inversions int
	err        error
}

// watch reads a topic from its begin until close.
func watch(brokers []string, topic string) (*arrivals, error) {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	consumer, err := sarama.NewConsumer(brokers, c)
	if err != nil {
		return nil, err
	}
	a := &arrivals{consumer: consumer, at: map[int]int64{}, latest: map[string]int{}}
	for p := range int32(partitions) {
		part, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			a.close()
			return nil, err
		}
		a.parts = append(a.parts, part)
		a.wg.Go(func() {
			for m := range part.Messages() {
				a.see(m.Value, time.Now().UnixNano())
			}
		})
	}
	return a, nil
}

// close ends the reading and waits for it.
func (a *arrivals) close() {
	for _, p := range a.parts {
		p.AsyncClose() // which ends its messages
	}
	a.wg.Wait()
	_ = a.consumer.Close()
}

func (a *arrivals) see(payload []byte, now int64) {
	if payload[0] == '{' { // of a backlog
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	fields := bytes.SplitN(payload, []byte{' '}, 3)
	seq, err := strconv.Atoi(string(fields[0]))
	if err != nil || len(fields) < 3 {
		a.err = fmt.Errorf("a record begins with %.40q, not with its number and key", payload)
		return
	}
	if _, again := a.at[seq]; again {
		a.duplicates++
		return
	}
	a.at[seq] = now
	key := string(fields[1])
	if before, ok := a.latest[key]; ok && seq < before {
		a.inversions++
		return
	}
	a.latest[key] = seq
}

// missing counts those of committed that have not arrived.
func (a *arrivals) missing(committed map[int]int64) (n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for seq := range committed {
		if _, ok := a.at[seq]; !ok {
			n++
		}
	}
	return n, a.err
}

// all waits until all of committed have arrived, as long as some still do.
func (a *arrivals) all(ctx context.Context, committed map[int]int64) error {
	left, moved := len(committed)+1, time.Now()
	for {
		n, err := a.missing(committed)
		switch {
		case err != nil || n == 0:
			return err
		case n < left:
			left, moved = n, time.Now()
		case time.Since(moved) > peerStall:
			return fmt.Errorf("%d of %d events have not arrived, and none came for %s", n, len(committed), peerStall)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// delays are the milliseconds from each commit to the arrival.
func (a *arrivals) delays(committed map[int]int64) []float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]float64, 0, len(committed))
	for seq, at := range committed {
		if seen, ok := a.at[seq]; ok {
			out = append(out, max(float64(seen-at)/1e6, 0)) // the consumer may be faster than the writer's answer
		}
	}
	return out
}
