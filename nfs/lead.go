package nfs

import (
	"errors"
	"sync"
	"time"
)

// One goroutine at a time leads a connection: it reads calls and answers them. A call
// that may have to wait for a disk it leaves to another goroutine, or, where most such
// calls do not wait after all, it answers that call itself, under watch: if that takes
// long, another goroutine leads the connection from then on, and the one that waits
// only finishes its call. So what is behind such a call waits for two ticks at most,
// and the others are spared two switches of threads, which cost more than a small READ
// or WRITE: with one call at a time those of 4 KiB took 58 and 92 us of CPU, and take 18
// and 44 so (bench homes, 1x1).

// watchTick is how often it is looked whether a call takes long: less than a client
// notices, and so long that looking costs nothing.
const watchTick = time.Millisecond

// watchIdle is after how many ticks without a call a connection is not watched any more.
const watchIdle = 50

// errLed ends the work of a goroutine whose connection another one leads by now.
var errLed = errors.New("another goroutine leads the connection")

// watch looks after the connections whose leaders answer calls that may wait.
type watch struct {
	mu    sync.Mutex // guards conns
	conns map[*conn]*watched
}

// watched is what the watch knows of a connection.
type watched struct {
	turn  uint64 // when it was last looked at
	ticks int    // for how long that has been so
}

// beginTurn begins a call that may wait, which counts as slow until slow.Done: who
// leads the connection to its end by then waits for it. While it is under way the
// connection's turn is the number that it returns.
func (c *conn) beginTurn() uint64 {
	c.slow.Add(1)
	turn := c.turn.Add(1)
	// In this order: the watch, about to forget a connection, does it the other way
	// round, so that one of the two sees the other.
	if !c.isWatched.Load() {
		c.srv.watch.add(c)
	}
	return turn
}

// endTurn ends a call and reports whether the caller still leads the connection.
func (c *conn) endTurn(turn uint64) bool { return c.turn.CompareAndSwap(turn, turn+1) }

// inTurn reports whether a turn is one of those in which a call is under way.
func inTurn(turn uint64) bool { return turn%2 == 1 }

func (w *watch) add(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.isWatched.Store(true)
	if w.conns == nil {
		w.conns = map[*conn]*watched{}
		go w.run()
	}
	w.conns[c] = &watched{}
}

// run looks at the connections until there is none that must be watched.
func (w *watch) run() {
	for {
		time.Sleep(watchTick)
		if !w.look() {
			return
		}
	}
}

// look relieves the leaders that have been in one call since the last look, and reports
// whether there is still something to watch.
func (w *watch) look() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, seen := range w.conns {
		turn := c.turn.Load()
		switch {
		case turn != seen.turn:
			seen.turn, seen.ticks = turn, 0
		case inTurn(turn):
			c.relieve(turn)
		default:
			if seen.ticks++; seen.ticks > watchIdle {
				w.forget(c, turn)
			}
		}
	}
	if len(w.conns) > 0 {
		return true
	}
	w.conns = nil
	return false
}

// forget stops watching a connection, unless a call has begun. The caller holds mu.
func (w *watch) forget(c *conn, turn uint64) {
	c.isWatched.Store(false)
	if c.turn.Load() != turn {
		c.isWatched.Store(true)
		return
	}
	delete(w.conns, c)
}

// relieve lets another goroutine lead the connection if the call of that turn is still
// under way.
func (c *conn) relieve(turn uint64) {
	if c.turn.CompareAndSwap(turn, turn+1) {
		go c.lead()
	}
}
