package nfs

import (
	"runtime/debug"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// answerSlowly answers the READ in c.call by a goroutine of its own, which may
// wait for a disk while calls that came later are answered. What such replies
// take is bounded for the connection and for the server; when a bound is
// reached, the connection reads no further calls until there is room again.
func (c *conn) answerSlowly() error {
	size := readBufferSize(int(c.call.read.count))
	if err := c.reserve(size, c.pending, c.srv.pending); err != nil {
		return err
	}
	buf, recycle := c.srv.pools.buffer(size)
	slow := c.call.fork(buf)
	slow.arrived = c.arrived
	c.stats.waited.Add(1)
	c.slow.Add(1)
	go func() {
		defer c.slow.Done()
		defer c.pending.give(size)
		defer c.srv.pending.give(size)
		if err := c.finish(slow); err != nil {
			c.tcp.Close() // what was sent may be a part of a reply
			return
		}
		recycle()
		c.srv.freeCall(slow)
	}()
	return nil
}

// reserve takes bytes of several budgets, waiting for them if it must.
func (c *conn) reserve(size int, budgets ...*budget) error {
	for i, b := range budgets {
		if b.tryTake(size) {
			continue
		}
		// What is answered already must not wait for that.
		if err := c.flush(); err != nil {
			for _, taken := range budgets[:i] {
				taken.give(size)
			}
			return err
		}
		b.take(size)
	}
	return nil
}

// fork returns a copy of a READ that has been decoded, which answers into buf
// and shares nothing with c.
func (c *call) fork(buf []byte) *call {
	s := get[call](&c.srv.pools.calls)
	s.srv, s.peer, s.local, s.remote = c.srv, c.peer, c.local, c.remote
	s.header, s.kind, s.read, s.obj, s.attr = c.header, c.kind, c.read, c.obj, c.attr
	s.args = wire.Decoder{}
	s.identify()
	s.out.Reset(buf)
	return s
}

// finish answers a READ and sends the reply.
func (c *conn) finish(call *call) (err error) {
	debug.SetPanicOnFault(true) // it reads mapped files, which may be cut or damaged
	defer func() {
		if r := recover(); r != nil {
			err = c.srv.panicked(r, call)
		}
	}()
	c.srv.disk <- struct{}{}
	call.finishRead(c.srv.disk)
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out.waited = false
	if err := c.out.send(call.out.Bytes(), false); err != nil {
		return err
	}
	c.countOne(call)
	return nil
}

// finishRead reads as long as it takes. It gives back the token that the caller
// took from disk.
func (c *call) finishRead(disk <-chan struct{}) {
	defer func() { <-disk }()
	mark := c.out.BeginRecord()
	c.out.Accepted(c.header.XID, wire.Success)
	pos := c.out.Len()
	if stat := c.readCopying(false); stat != wire.Success {
		c.out.Truncate(pos - 4)
		c.out.Uint32(uint32(stat))
	}
	c.out.EndRecord(mark, 0)
}
