package nfs

import "sync"

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

// give gives n bytes back and lets those go on who waited for them.
func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	for len(b.waiting) > 0 && b.free >= min(b.waiting[0].n, b.total) {
		w := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.free -= w.n
		close(w.ready)
	}
}
