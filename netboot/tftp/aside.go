package tftp

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// aside is a goroutine that does, in order, what may wait for others: it writes
// the log, and calls Confirmed and Done. Where the log is a pipe that nobody
// reads, transfers must go on, so what finds the queue full is left out: a boot
// then is not confirmed by this file, and the count of what was left out is logged.
type aside struct {
	log      *zap.Logger
	queue    chan func()
	leftOut  atomic.Int64
	finished chan struct{}
}

// finishTime is how long a server that stops waits for its log.
const finishTime = time.Second

func newAside(log *zap.Logger, most int) *aside {
	a := &aside{log: log, queue: make(chan func(), most), finished: make(chan struct{})}
	go a.run()
	return a
}

func (a *aside) run() {
	defer close(a.finished)
	for f := range a.queue {
		f()
		if n := a.leftOut.Swap(0); n > 0 {
			a.log.Warn("what happened was not noted: the log, or what is told of transfers, is too slow", zap.Int64("times", n))
		}
	}
}

// do has f done, and reports whether it will be. It does not wait.
func (a *aside) do(f func()) bool {
	select {
	case a.queue <- f:
		return true
	default:
		a.leftOut.Add(1)
		return false
	}
}

// finish waits for all to be done, but not for long. Nobody may call do any more.
func (a *aside) finish() {
	close(a.queue)
	select {
	case <-a.finished:
	case <-time.After(finishTime):
	}
}

// confirmation is a call of Confirmed that is waited for: the file is closed by
// who comes last, the call or the end of the transfer.
type confirmation struct {
	file  Confirmer
	users atomic.Int32
}

func newConfirmation(f Confirmer) *confirmation {
	c := &confirmation{file: f}
	c.users.Store(2)
	return c
}

func (c *confirmation) run() {
	c.file.Confirmed()
	c.release()
}

func (c *confirmation) release() {
	if c.users.Add(-1) == 0 {
		c.file.Close()
	}
}
