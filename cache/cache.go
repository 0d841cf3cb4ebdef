// Package cache holds byte-bounded caches that fill themselves, each value once
// however many ask for it at the same time. It knows nothing of files, trees
// and clients.
package cache

import (
	"context"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache keeps the values that were asked for last, up to a number of bytes.
// Values belong to the cache and to all who got them, so nobody changes one,
// and there is nothing to invalidate: a key stands for one value forever. All
// methods may be called by many goroutines at once.
type Cache[K comparable] struct {
	mu      sync.Mutex // guards the fields below; never held during a fill
	lru     *simplelru.LRU[K, []byte]
	used    int64
	limit   int64
	flights map[K]*flight
}

// flight is a fill under way. value and err are set before done is closed.
type flight struct {
	done  chan struct{}
	value []byte
	err   error
}

// New returns a cache that holds at most limit bytes, which is positive, of
// values and what it takes to remember them.
func New[K comparable](limit int64) *Cache[K] {
	if limit <= 0 {
		panic(fmt.Sprintf("cache: limit of %d bytes", limit))
	}
	c := &Cache[K]{limit: limit, flights: make(map[K]*flight)}
	// The number of entries is not what bounds this cache, so the only error of
	// NewLRU, a size below one, cannot happen.
	c.lru, _ = simplelru.NewLRU(math.MaxInt, func(_ K, value []byte) { c.used -= c.cost(value) })
	return c
}

// cost is what a value takes of the limit: an entry of the list and one of the
// map beside its bytes.
func (c *Cache[K]) cost(value []byte) int64 {
	var key K
	return int64(cap(value)) + 2*int64(unsafe.Sizeof(key)) + 128
}

// Get returns the value of key, calling fill to make it if need be. All who ask
// for a key while it is being made get the result of the one call, an error
// too; but an error is not kept, so who asks later tries again.
//
// Who is tired of waiting ends ctx and gets its error. The fill goes on
// for the others, and for the cache: its own context carries the values of the
// first caller's, but does not end with it.
func (c *Cache[K]) Get(ctx context.Context, key K, fill func(context.Context) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if value, ok := c.lru.Get(key); ok {
		c.mu.Unlock()
		return value, nil
	}
	f, ok := c.flights[key]
	if !ok {
		f = c.start(ctx, key, fill)
	}
	c.mu.Unlock()

	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start begins to make the value of key. The caller holds mu.
func (c *Cache[K]) start(ctx context.Context, key K, fill func(context.Context) ([]byte, error)) *flight {
	f := &flight{done: make(chan struct{})}
	c.flights[key] = f
	go func() {
		f.value, f.err = fill(context.WithoutCancel(ctx))
		c.finish(key, f)
	}()
	return f
}

// finish keeps the value and wakes those who wait. They take it from f, not
// from the list: it may be evicted before they run. Adding it and forgetting
// the flight are one step, so nobody finds neither and makes it a second time.
func (c *Cache[K]) finish(key K, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	if cost := c.cost(f.value); f.err == nil && cost <= c.limit {
		c.lru.Add(key, f.value)
		c.used += cost
		for c.used > c.limit {
			c.lru.RemoveOldest()
		}
	}
	close(f.done)
}

// Used returns the bytes that the cache takes now; at most the limit.
func (c *Cache[K]) Used() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}
