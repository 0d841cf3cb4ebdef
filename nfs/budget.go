package nfs

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// budget is a number of bytes that many share: who needs some takes it first
// and gives it back, and waits while there is not enough. Who came first is
// served first.
type budget struct {
	mu      sync.Mutex // guards the rest
	total   int
	free    int
	waiting []waiter
}

type waiter struct {
	n     int
	ready chan struct{}
}

func newBudget(total int) *budget { return &budget{total: total, free: total} }

// tryTake takes n bytes if it need not wait.
func (b *budget) tryTake(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeLocked(n)
}

func (b *budget) takeLocked(n int) bool {
	// More than there can ever be is let through when nothing else is: a budget
	// that is set too small makes a server slow, never stuck.
	if len(b.waiting) > 0 || b.free < min(n, b.total) {
		return false
	}
	b.free -= n
	return true
}

// untouched reports whether nobody has any of it.
func (b *budget) untouched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free == b.total
}

// taken is how much of it is not there.
func (b *budget) taken() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - b.free
}

// take takes n bytes, waiting for them if it must.
func (b *budget) take(n int) {
	b.mu.Lock()
	if b.takeLocked(n) {
		b.mu.Unlock()
		return
	}
	w := waiter{n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	<-w.ready
}

// takeWithin takes n bytes and reports true, or gives up after a while.
func (b *budget) takeWithin(n int, patience time.Duration) bool {
	b.mu.Lock()
	if b.takeLocked(n) {
		b.mu.Unlock()
		return true
	}
	w := waiter{n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-w.ready:
		return true
	case <-timeout.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 {
		return true // at the last moment
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.wakeLocked() // others may have waited behind this one only
	return false
}

// give gives n bytes back and lets those go on who waited for them.
func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	b.wakeLocked()
}

// wakeLocked lets those go on for whom there is enough.
func (b *budget) wakeLocked() {
	for len(b.waiting) > 0 && b.free >= min(b.waiting[0].n, b.total) {
		w := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.free -= w.n
		close(w.ready)
	}
}

// shares are budgets of nodes, each of which all connections of one share.
type shares struct {
	total int // of each

	mu sync.Mutex // guards of
	of map[netip.Addr]*share
}

type share struct {
	*budget
	conns int
}

// join returns the budget of a node for one more connection, which leaves when it
// has ended.
func (s *shares) join(node netip.Addr) *budget {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[netip.Addr]*share{}
	}
	if s.of[node] == nil {
		s.of[node] = &share{budget: newBudget(s.total)}
	}
	s.of[node].conns++
	return s.of[node].budget
}

func (s *shares) leave(node netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[node].conns--; s.of[node].conns == 0 {
		delete(s.of, node)
	}
}
