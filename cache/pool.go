package cache

import (
	"container/list"
	"fmt"
	"sync"
)

// Pool lends things that must be closed, such as open files. What a key stands
// for is opened once, used by many at once, and closed some time after the last
// of them gave it back. All methods may be called by many goroutines at once.
type Pool[K comparable, V any] struct {
	open  func(K) (V, error)
	close func(V)
	limit int

	mu      sync.Mutex // guards the fields below; not held while something is opened or closed
	entries map[K]*lent[K, V]
	order   *list.List // of *lent, the one that was asked for longest ago first
	round   uint64
}

// lent is what a key stands for. value and err are set before opened is closed.
type lent[K comparable, V any] struct {
	key    K
	opened chan struct{}
	value  V
	err    error

	users   int
	round   uint64 // in which it was asked for last
	dropped bool
	place   *list.Element
}

// NewPool returns a Pool that makes things with open and ends them with close.
// When it holds limit of them, which is positive, it closes the one that was
// idle longest for each new one; it only holds more if so many are in use.
func NewPool[K comparable, V any](limit int, open func(K) (V, error), close func(V)) *Pool[K, V] {
	if limit <= 0 {
		panic(fmt.Sprintf("cache: limit of %d things", limit))
	}
	return &Pool[K, V]{open: open, close: close, limit: limit, entries: make(map[K]*lent[K, V]), order: list.New()}
}

// Get returns what key stands for, opening it if need be. Every Get without an
// error is followed by one Put. An error of opening goes to all who waited, and
// is not kept.
func (p *Pool[K, V]) Get(key K) (V, error) {
	p.mu.Lock()
	e, ok := p.entries[key]
	if ok {
		e.users++
		e.round = p.round
		p.order.MoveToBack(e.place)
		p.mu.Unlock()
		<-e.opened
		return e.value, e.err
	}
	e = &lent[K, V]{key: key, opened: make(chan struct{}), users: 1, round: p.round}
	e.place = p.order.PushBack(e)
	p.entries[key] = e
	surplus := p.surplus()
	p.mu.Unlock()

	p.closeAll(surplus)
	e.value, e.err = p.open(key)
	if e.err != nil {
		p.mu.Lock()
		p.forget(e)
		p.mu.Unlock()
	}
	close(e.opened)
	return e.value, e.err
}

// Put gives back what Get returned for key.
func (p *Pool[K, V]) Put(key K) {
	p.mu.Lock()
	e := p.entries[key]
	e.users--
	gone := e.users == 0 && e.dropped
	if gone {
		p.forget(e)
	}
	p.mu.Unlock()
	if gone {
		p.close(e.value)
	}
}

// Drop closes what key stands for as soon as nobody uses it.
func (p *Pool[K, V]) Drop(key K) {
	p.mu.Lock()
	e := p.entries[key]
	gone := e != nil && e.users == 0
	if gone {
		p.forget(e)
	} else if e != nil {
		e.dropped = true
	}
	p.mu.Unlock()
	if gone {
		p.close(e.value)
	}
}

// Sweep closes what nobody uses and nobody asked for since the last Sweep.
func (p *Pool[K, V]) Sweep() {
	p.mu.Lock()
	var old []*lent[K, V]
	for at := p.order.Front(); at != nil; {
		e := at.Value.(*lent[K, V])
		at = at.Next()
		if e.round == p.round { // so are all that come behind it
			break
		}
		if e.users == 0 {
			p.forget(e)
			old = append(old, e)
		}
	}
	p.round++
	p.mu.Unlock()
	p.closeAll(old)
}

// Len is how many things are open.
func (p *Pool[K, V]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.entries)
}

// surplus takes away what makes the pool hold more than it should, as far as
// it is idle. The caller holds mu, and closes it.
func (p *Pool[K, V]) surplus() []*lent[K, V] {
	var idle []*lent[K, V]
	for at := p.order.Front(); at != nil && len(p.entries) > p.limit; {
		e := at.Value.(*lent[K, V])
		at = at.Next()
		if e.users == 0 {
			p.forget(e)
			idle = append(idle, e)
		}
	}
	return idle
}

// forget makes the next Get open the key anew. The caller holds mu.
func (p *Pool[K, V]) forget(e *lent[K, V]) {
	delete(p.entries, e.key)
	p.order.Remove(e.place)
}

func (p *Pool[K, V]) closeAll(entries []*lent[K, V]) {
	for _, e := range entries {
		p.close(e.value)
	}
}
