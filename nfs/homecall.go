package nfs

import (
	"runtime/debug"
	"time"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// Homes lie on a disk of the host, and whatever is asked about them may have to
// wait for it. So each call about one is answered by a goroutine of its own, and
// calls that came later go on meanwhile: a slow WRITE in a home does not hold up
// the root file system that is mounted over the same connection. What such calls
// and their replies take is bounded, for a connection and in all.

// answerInHome answers the call in c.call, which is about a home, by a goroutine
// of its own.
func (c *conn) answerInHome(record []byte) error {
	c.usesHome = true
	in, out := bufferSize(len(record)), bufferSize(c.call.roomInHome())
	if room, err := c.reserveForHome(in + out); err != nil {
		return err
	} else if !room {
		c.call.refuseInHome()
		return nil
	}
	msg, recycleMsg := c.takeRecord(record, in)
	buf, recycleBuf := c.srv.pools.buffer(out)
	call := c.call.forkInHome(buf)
	c.slow.Add(1)
	go func() {
		defer c.slow.Done()
		defer c.homes.give(in + out)
		defer c.srv.homes.give(in + out)
		if err := c.finishInHome(call, msg); err != nil {
			c.tcp.Close() // what was sent may be a part of a reply
			return
		}
		recycleMsg()
		recycleBuf()
		c.srv.freeCall(call)
	}()
	return nil
}

// homePatience is how long a connection waits for room for a call about a home.
const homePatience = 250 * time.Millisecond

// reserveForHome takes what a call about a home and its reply need, and reports
// whether there was as much. A disk that is busy makes room again soon, so that is
// waited for; but once that was in vain, calls are told to come later until there
// is room, for the calls behind them may be about the root file system.
func (c *conn) reserveForHome(size int) (bool, error) {
	for i, b := range [...]*budget{c.homes, c.srv.homes} {
		room := b.tryTake(size)
		if !room && !c.homesStuck {
			if err := c.flush(); err != nil { // what is answered already must not wait
				c.giveHome(size, i)
				return false, err
			}
			room = b.takeWithin(size, homePatience)
		}
		if !room {
			c.giveHome(size, i)
			c.homesStuck = true
			return false, nil
		}
	}
	c.homesStuck = false
	return true, nil
}

// giveHome gives back what the first n of the budgets of homes gave.
func (c *conn) giveHome(size, n int) {
	for _, b := range []*budget{c.homes, c.srv.homes}[:n] {
		b.give(size)
	}
}

// refuseInHome appends the reply to a call about a home that has to come later.
func (c *call) refuseInHome() {
	mark := c.out.BeginRecord()
	defer func() { c.out.EndRecord(mark, 0) }()
	c.out.Accepted(c.header.XID, wire.Success)
	if c.header.Prog == progMount {
		c.out.Uint32(uint32(gonfs.MountStatusErrServerFault))
		return
	}
	c.out.Uint32(uint32(gonfs.NFSStatusJukebox))
	for range c.absent() {
		c.out.Bool(false)
	}
}

// absent is how many attributes the reply to a call that fails can carry, each
// of which can be left out.
func (c *call) absent() int {
	proc := c.header.Proc
	switch {
	case c.header.Prog != progNFS:
		return 1 // NFSACL
	case proc == uint32(gonfs.NFSProcedureGetAttr):
		return 0
	case !mutates(proc):
		return 1
	}
	n := 2 // a wcc_data
	if proc == uint32(gonfs.NFSProcedureRename) || proc == uint32(gonfs.NFSProcedureLink) {
		n = 4
	}
	if mutations[proc].plainFirst {
		n--
	}
	return n
}

// mutates reports whether a procedure of NFS changes something.
func mutates(proc uint32) bool {
	return uint64(proc) < uint64(len(mutations)) && mutations[proc].args != nil
}

// takeRecord returns a record that stays, in a buffer of that size, and what
// gives that back. A large WRITE is not copied: it keeps the buffer that it
// arrived in, and the connection goes on in another one.
func (c *conn) takeRecord(record []byte, size int) (msg []byte, recycle func()) {
	if large := c.large; large != nil && size == largeSize && c.in.unread() <= smallSize {
		c.small = get[smallBuffer](&c.srv.pools.small)
		c.in.move(c.small[:])
		c.large = nil
		c.srv.incoming.give(largeSize) // the budget of homes has it now
		return record, func() { c.srv.pools.large.Put(large) }
	}
	buf, recycle := c.srv.pools.buffer(size)
	return buf[:copy(buf, record)], recycle
}

// roomInHome is how large the reply to a call about a home may be.
func (c *call) roomInHome() int {
	if c.header.Prog != progNFS {
		return maxHeader
	}
	switch gonfs.NFSProcedure(c.header.Proc) {
	case gonfs.NFSProcedureRead:
		args := c.args
		args.Opaque(exports.MaxHandle)
		args.Uint64()
		return maxHeader + int(min(args.Uint32(), maxIO))
	case gonfs.NFSProcedureReadDir, gonfs.NFSProcedureReadDirPlus:
		return maxHeader + maxListing
	case gonfs.NFSProcedureReadlink:
		return maxHeader + maxLink
	default:
		return maxHeader
	}
}

// forkInHome returns a call of the same client, which answers into buf and shares
// nothing with c.
func (c *call) forkInHome(buf []byte) *call {
	s := get[call](&c.srv.pools.calls)
	s.srv, s.peer, s.local, s.remote = c.srv, c.peer, c.local, c.remote
	s.out.Reset(buf)
	return s
}

// finishInHome answers a call about a home and sends the reply.
func (c *conn) finishInHome(call *call, msg []byte) (err error) {
	debug.SetPanicOnFault(true)
	defer func() {
		if r := recover(); r != nil {
			err = c.srv.panicked(r, call)
		}
	}()
	if !call.answerOnce(c, msg) {
		return nil
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out.waited = false
	return c.out.send(call.out.Bytes(), false)
}

// answerOnce appends the reply to a message that is about a home, the same as
// before if it has come before. It reports false if there is nothing to send: the
// reply to the first of the two will go to the same connection, or nobody is there
// to take it and the call was not carried out.
func (c *call) answerOnce(on *conn, msg []byte) bool {
	c.args = wire.NewDecoder(msg)
	c.header.Decode(&c.args)
	c.identify()
	proc, _ := c.procedure()
	mark := c.out.BeginRecord()
	defer func() { c.out.EndRecord(mark, 0) }()
	if !c.onceOnly() {
		c.run(proc)
		return true
	}
	request := c.request(msg[len(msg)-c.args.Len():])
	fresh, reply := c.dupCache().begin(request, on)
	switch {
	case reply != nil:
		copy(c.out.Extend(len(reply)), reply)
		return true
	case fresh == nil:
		return false
	}
	start := c.out.Len()
	defer fresh.abandon() // if it is not finished
	// Looked at after begin: either the call is dropped, or the same one over
	// another connection waits for it.
	if on.dead.Load() {
		return false
	}
	c.run(proc)
	fresh.finish(c.out.Bytes()[start:])
	return true
}

// dupCache is where the call is known, if it must be answered only once.
func (c *call) dupCache() *dupCache {
	if c.header.Proc == uint32(gonfs.NFSProcedureWrite) {
		return c.srv.writes
	}
	return c.srv.dups
}

// onceOnly reports whether it makes a difference that a call is answered twice.
func (c *call) onceOnly() bool {
	proc := c.header.Proc
	return c.header.Prog == progNFS && uint64(proc) < uint64(len(mutations)) && mutations[proc].once
}

// checkLink reports what is wrong with the text of a symlink.
func checkLink(text []byte) error {
	switch {
	case len(text) == 0:
		return fs.ErrInvalid
	case len(text) >= maxLink:
		return fs.ErrNameTooLong
	}
	for _, b := range text {
		if b == 0 {
			return fs.ErrInvalid
		}
	}
	return nil
}
