package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// maxCached bounds a cache's entries: ids come from messages.
	maxCached = 4096
	// refusedFor is how long a final answer such as "unknown id" is believed.
	refusedFor = 10 * time.Second
	// awayFor is how long nobody asks again after the registry failed to answer:
	// callers that retry at once would only add to its trouble.
	awayFor = time.Second
)

// cache remembers what the registry said, successes for ever and errors briefly.
// Callers that ask for the same at once share one request.
type cache[K comparable, V any] struct {
	lifetime func(error) time.Duration

	flights singleflight.Group
	mu      sync.Mutex
	entries map[K]cached[V]
}

type cached[V any] struct {
	value V
	err   error
	until time.Time // zero: for ever
}

func (c *cache[K, V]) get(ctx context.Context, key K, fetch func(context.Context) (V, error)) (V, error) {
	for {
		if e, ok := c.lookup(key); ok {
			return e.value, e.err
		}
		result, err, _ := c.flights.Do(fmt.Sprintf("%#v", key), func() (any, error) {
			if e, ok := c.lookup(key); ok { // of a flight that ended meanwhile
				return e.value, e.err
			}
			v, err := fetch(ctx)
			c.store(ctx, key, v, err)
			return v, err
		})
		if errors.Is(err, errGaveUp) && ctx.Err() == nil {
			continue // the caller that led the flight gave up, we do not
		}
		v, _ := result.(V)
		return v, err
	}
}

func (c *cache[K, V]) lookup(key K) (cached[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if ok && !e.until.IsZero() && time.Now().After(e.until) {
		delete(c.entries, key)
		return e, false
	}
	return e, ok
}

func (c *cache[K, V]) store(ctx context.Context, key K, v V, err error) {
	e := cached[V]{value: v, err: err}
	if err != nil {
		if ctx.Err() != nil {
			return // that says nothing about the registry
		}
		e.until = time.Now().Add(c.lifetime(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[K]cached[V])
	}
	if len(c.entries) >= maxCached {
		for k := range c.entries { // any one will do
			delete(c.entries, k)
			break
		}
	}
	c.entries[key] = e
}
