package cache

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
)

// Pool lends things that must be closed, such as open files. What a key stands
// for is opened once, used by many at once, and closed some time after the last
// of them gave it back. A key is not opened again before what it stood for is
// closed. All methods may be called by many goroutines at once.
type Pool[K comparable, V any] struct {
	open  func(K) (V, error)
	close func(V)
	limit int

	mu      sync.Mutex // guards the fields below; not held while something is opened or closed
	entries map[K]*lent[K, V]
	order   *list.List // of *lent but those that are closing, the one that was asked for longest ago first
	round   uint64
	closers int // goroutines of closeSurplus
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
	place   *list.Element // nil as soon as it is closing
	closed  chan struct{}
}

// maxClosers is how many things are closed at once for want of room. Closing
// one may wait for a disk, of which there are several.
const maxClosers = 4

var errPanicked = errors.New("cache: opening it panicked")

// NewPool returns a Pool that makes things with open and ends them with close.
// When it holds more than limit of them, which is positive, those that were
// idle longest are closed in the background, so that nobody who asks for one
// thing waits for the end of another; but with a quarter more, who asks closes.
// It only holds still more if so many are in use.
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
	for ok && e.place == nil {
		p.mu.Unlock()
		<-e.closed
		p.mu.Lock()
		e, ok = p.entries[key]
	}
	if ok {
		e.users++
		e.round = p.round
		p.order.MoveToBack(e.place)
		p.mu.Unlock()
		<-e.opened
		return e.value, e.err
	}
	e = &lent[K, V]{key: key, opened: make(chan struct{}), closed: make(chan struct{}), users: 1, round: p.round}
	e.place = p.order.PushBack(e)
	p.entries[key] = e
	p.makeRoom()
	p.mu.Unlock()

	p.fill(e)
	return e.value, e.err
}

// GetOpen is Get for what is open, and is not to be closed as soon as nobody uses it;
// else it reports false. Nobody has asked for the thing by that: it stays open no longer.
// Like Get it is followed by one Put if it reports true.
func (p *Pool[K, V]) GetOpen(key K) (value V, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[key]
	if e == nil || e.place == nil || e.dropped || !isClosed(e.opened) {
		return value, false
	}
	e.users++
	return e.value, true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Add lends a thing that was opened elsewhere, as Get does, and reports true; or it
// reports false because the key stands for something already, and does nothing.
func (p *Pool[K, V]) Add(key K, value V) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries[key] != nil {
		return false
	}
	e := &lent[K, V]{key: key, opened: make(chan struct{}), value: value, closed: make(chan struct{}), users: 1, round: p.round}
	close(e.opened)
	e.place = p.order.PushBack(e)
	p.entries[key] = e
	p.makeRoom()
	return true
}

// fill opens e, which fails for those who wait for it if that panics.
func (p *Pool[K, V]) fill(e *lent[K, V]) {
	e.err = errPanicked
	defer func() {
		if e.err != nil {
			p.mu.Lock()
			p.retire(e)
			delete(p.entries, e.key)
			p.mu.Unlock()
			close(e.closed)
		}
		close(e.opened)
	}()
	e.value, e.err = p.open(e.key)
}

// Put gives back what Get returned for key.
func (p *Pool[K, V]) Put(key K) {
	p.mu.Lock()
	e := p.entries[key]
	e.users--
	gone := e.users == 0 && e.dropped
	if gone {
		p.retire(e)
	}
	p.mu.Unlock()
	if gone {
		p.end(e)
	}
}

// Drop closes what key stands for as soon as nobody uses it.
func (p *Pool[K, V]) Drop(key K) {
	p.mu.Lock()
	e := p.entries[key]
	gone := e != nil && e.users == 0 && e.place != nil
	if gone {
		p.retire(e)
	} else if e != nil {
		e.dropped = true
	}
	p.mu.Unlock()
	if gone {
		p.end(e)
	}
}

// Sweep closes what nobody uses and nobody asked for since the last Sweep.
func (p *Pool[K, V]) Sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.round
	p.round++
	for e := p.idle(now); e != nil; e = p.idle(now) {
		p.endUnlocked(e)
	}
}

// Len is how many things are open, with those that are being closed.
func (p *Pool[K, V]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.entries)
}

// makeRoom sees to it that what the pool holds beyond its limit is closed. The
// caller holds mu.
func (p *Pool[K, V]) makeRoom() {
	if p.order.Len() <= p.limit {
		return
	}
	if p.closers < maxClosers {
		p.closers++
		go p.closeSurplus()
	}
	for len(p.entries) > p.limit+p.limit/4 {
		e := p.surplus()
		if e == nil {
			return
		}
		p.endUnlocked(e)
	}
}

func (p *Pool[K, V]) closeSurplus() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.surplus(); e != nil; e = p.surplus() {
		p.endUnlocked(e)
	}
	p.closers--
}

// surplus takes the thing that was idle longest if the pool holds more than it
// should. The caller holds mu.
func (p *Pool[K, V]) surplus() *lent[K, V] {
	if p.order.Len() <= p.limit {
		return nil
	}
	return p.idle(p.round + 1)
}

// idle takes the first thing that nobody uses and that was asked for before the
// given round. The caller holds mu.
func (p *Pool[K, V]) idle(before uint64) *lent[K, V] {
	for at := p.order.Front(); at != nil; at = at.Next() {
		e := at.Value.(*lent[K, V])
		if e.round >= before { // so are all that come behind it
			return nil
		}
		if e.users == 0 {
			p.retire(e)
			return e
		}
	}
	return nil
}

// retire makes e one that is closing: from now on nobody gets it. The caller
// holds mu, and calls end.
func (p *Pool[K, V]) retire(e *lent[K, V]) {
	p.order.Remove(e.place)
	e.place = nil
}

// end closes a thing. Only then its key can be opened anew: what closing found
// out, such as content that was lost, is known to all who use it after.
func (p *Pool[K, V]) end(e *lent[K, V]) {
	defer func() {
		p.mu.Lock()
		delete(p.entries, e.key)
		p.mu.Unlock()
		close(e.closed)
	}()
	p.close(e.value)
}

// endUnlocked is end without mu, which the caller holds.
func (p *Pool[K, V]) endUnlocked(e *lent[K, V]) {
	p.mu.Unlock()
	defer p.mu.Lock()
	p.end(e)
}
