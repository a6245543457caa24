package dedup

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// MemoryConfig configures a [Memory].
type MemoryConfig struct {
	// MaxEntries is the number of keys that are remembered or running, each with
	// its response. When all are younger than TTL, new keys are refused with
	// ErrFull: forgetting one early could make it happen twice. Default 100,000.
	MaxEntries int
	// TTL is how long a key is remembered after it was handled; it must be longer
	// than a caller goes on trying. Default 24 h.
	TTL time.Duration
	// Concurrent says what Once does while another call runs the same key.
	// Default Wait.
	Concurrent Concurrent
}

// Memory is a [Store] in this process's memory: for tests, and for what may happen
// again after a restart or in another instance. It is safe for concurrent use.
type Memory struct {
	cfg MemoryConfig

	mu      sync.Mutex
	entries map[uuid.UUID]*entry
	handled list.List // of *entry, by expiry
}

var _ Store = (*Memory)(nil)

type entry struct {
	key      uuid.UUID
	ended    chan struct{} // closed when the call has ended, either way
	handled  bool
	response []byte
	expires  time.Time
}

// NewMemory returns an empty store.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	cfg.MaxEntries = cmp.Or(cfg.MaxEntries, 100_000)
	cfg.TTL = cmp.Or(cfg.TTL, 24*time.Hour)
	switch {
	case cfg.MaxEntries < 0:
		return nil, fmt.Errorf("dedup: MemoryConfig.MaxEntries %d is negative (leave it 0 for 100000)", cfg.MaxEntries)
	case cfg.TTL < 0:
		return nil, fmt.Errorf("dedup: MemoryConfig.TTL %s is negative (leave it 0 for 24h)", cfg.TTL)
	case !cfg.Concurrent.known():
		return nil, fmt.Errorf("dedup: MemoryConfig.Concurrent %s: must be Wait or Conflict", cfg.Concurrent)
	}
	return &Memory{cfg: cfg, entries: map[uuid.UUID]*entry{}}, nil
}

// Once implements [Store].
func (m *Memory) Once(ctx context.Context, key Key, do func(ctx context.Context) ([]byte, error)) (Answer, error) {
	e, answer, err := m.claim(ctx, key.foreign().uuid)
	if e == nil {
		return answer, err
	}
	handled := false
	defer func() { // also when do panics
		if !handled {
			m.end(e, nil, false)
		}
	}()
	response, err := do(ctx)
	if err != nil {
		return Answer{}, err
	}
	handled = true
	m.end(e, bytes.Clone(response), true)
	return Answer{Response: response}, nil
}

// claim returns the entry that the caller has to end, or nil and the answer.
func (m *Memory) claim(ctx context.Context, key uuid.UUID) (*entry, Answer, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, Answer{}, fmt.Errorf("dedup: once: %w", err)
		}
		e, mine, err := m.enter(key)
		switch {
		case err != nil || mine:
			return e, Answer{}, err
		case e.handled:
			return nil, Answer{Response: bytes.Clone(e.response), Duplicate: true}, nil
		case m.cfg.Concurrent == Conflict:
			return nil, Answer{}, ErrInProgress
		}
		select {
		case <-e.ended: // look again: it may have failed
		case <-ctx.Done():
			return nil, Answer{}, fmt.Errorf("dedup: once: waiting for another call with this key: %w", ctx.Err())
		}
	}
}

// enter returns the key's entry, a new one if it has none.
func (m *Memory) enter(key uuid.UUID) (e *entry, mine bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	if e := m.entries[key]; e != nil {
		seen := *e // what end writes is read under the lock
		return &seen, false, nil
	}
	if len(m.entries) >= m.cfg.MaxEntries {
		return nil, false, fmt.Errorf("%w: %d keys are running or younger than %s (raise MemoryConfig.MaxEntries or lower TTL)", ErrFull, len(m.entries), m.cfg.TTL)
	}
	e = &entry{key: key, ended: make(chan struct{})}
	m.entries[key] = e
	return e, true, nil
}

// expire forgets what is old enough. All live equally long, so the first handled
// expires first; what runs is not in the list.
func (m *Memory) expire(now time.Time) {
	for front := m.handled.Front(); front != nil; front = m.handled.Front() {
		e := front.Value.(*entry) //nolint:forcetypeassert // nothing else is put there
		if now.Before(e.expires) {
			return
		}
		m.handled.Remove(front)
		delete(m.entries, e.key)
	}
}

// end remembers or frees the key.
func (m *Memory) end(e *entry, response []byte, handled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if handled {
		e.handled, e.response, e.expires = true, response, time.Now().Add(m.cfg.TTL)
		m.handled.PushBack(e)
	} else {
		delete(m.entries, e.key)
	}
	close(e.ended)
}

// Len returns the number of keys that are remembered or running.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	return len(m.entries)
}
