// Package cache keeps many who want the same thing at once from each making it.
// It knows nothing of files, trees and clients.
//
// It keeps nothing that was made: for sealed content the kernel's page cache
// does that better. Least-recently-used chunks in memory of our own besides were
// measured with 16 nodes that read 55 MiB in a control group of 64 MiB, while a
// flood of other reads passed through it, three or four runs each on a busy
// machine. From the disk came 0 to 54 MiB without them, 54 to 64 with 4 MiB of
// them, and 123 to 394 with 16 MiB, which the page cache then lacked.
package cache

import (
	"errors"
	"sync"
)

// Flights makes values, each once for all who ask for it while it is being
// made. The zero Flights is ready for use, and its method may be called by many
// goroutines at once. It must not be copied.
type Flights[K comparable, V any] struct {
	mu      sync.Mutex // guards flights; never held while a value is made
	flights map[K]*flight[V]
}

// flight is a value that is being made. value and err are set before done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

var errUnfinished = errors.New("cache: what made the value ended without a result")

// Get returns what fill returns, which the first who asks for a key calls; who
// asks before that is done gets the same, an error too. Nobody may change the
// value. Afterwards the key is forgotten.
func (f *Flights[K, V]) Get(key K, fill func() (V, error)) (V, error) {
	f.mu.Lock()
	if f.flights == nil {
		f.flights = map[K]*flight[V]{}
	}
	if other, ok := f.flights[key]; ok {
		f.mu.Unlock()
		<-other.done
		return other.value, other.err
	}
	own := &flight[V]{done: make(chan struct{}), err: errUnfinished}
	f.flights[key] = own
	f.mu.Unlock()
	defer f.land(key, own) // those who wait must not wait forever, even if fill panics
	own.value, own.err = fill()
	return own.value, own.err
}

func (f *Flights[K, V]) land(key K, own *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.flights, key)
	close(own.done)
}
