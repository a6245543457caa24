package avro

import "sync"

// maxWriters bounds the writer schemas that a codec remembers. Real topics have
// a few; only somebody who makes up schemas reaches it.
const maxWriters = 128

// writer is a writer's schema made ready for decoding.
type writer struct {
	root *node
	conv conv  // nil if the layout is the reader's
	err  error // why it cannot be read; remembered like success
}

// writerCache remembers writers by the text of their schema.
type writerCache struct {
	mu sync.RWMutex
	m  map[string]*writer
}

func (c *writerCache) get(text string, compile func(string) *writer) *writer {
	c.mu.RLock()
	w := c.m[text]
	c.mu.RUnlock()
	if w != nil {
		return w
	}
	w = compile(text) // several goroutines may do so at once: it is pure
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]*writer)
	}
	if len(c.m) >= maxWriters {
		for k := range c.m { // any one will do
			delete(c.m, k)
			break
		}
	}
	c.m[text] = w
	return w
}
