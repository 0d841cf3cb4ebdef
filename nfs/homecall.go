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
// wait for it. So each call about one can be finished by a goroutine of its own, and
// calls that came later go on meanwhile: a slow WRITE in a home does not hold up
// the root file system that is mounted over the same connection. What such calls
// and their replies take is bounded, for a node and in all.

// homeCall is a call about a home, with all that it takes to finish it: it shares
// nothing with the leader of its connection.
type homeCall struct {
	conn    *conn
	call    *call
	msg     []byte
	size    int // what it has of the budgets of homes
	recycle [2]func()
}

// answerInHome answers the call in c.call, which is about a home, or leaves it to a
// goroutine of its own.
func (c *conn) answerInHome(record []byte) error {
	c.usesHome = true
	in, out := bufferSize(len(record)), bufferSize(c.call.roomInHome())
	size := in + out
	if c.data != nil {
		size += largeSize
	}
	quick := c.call.quickInHome()
	alone := c.homes.untouched() && !c.in.unreadRecord()
	if room, err := c.reserveForHome(size); err != nil {
		return err
	} else if !room {
		c.dropData()
		if c.call.refuseInHome() {
			c.batch.add(c.call.kind)
		}
		return nil
	}
	h := &homeCall{conn: c, size: size}
	h.msg, h.recycle[0] = c.takeRecord(record, in)
	pipe := c.takeData()
	if pipe == nil {
		pipe = c.call.pipeInHome()
	}
	if pipe != nil {
		out = bufferSize(maxHeader)
	}
	var buf []byte
	buf, h.recycle[1] = c.srv.pools.buffer(out)
	h.call = c.call.forkInHome(buf)
	h.call.arrived = c.arrived
	h.call.pipe = pipe
	if !quick && !alone {
		h.leave()
		return nil
	}
	return c.answerHere(h, quick)
}

// answerHere answers a call by the leader, for as long as that is who it is.
func (c *conn) answerHere(h *homeCall, quick bool) error {
	if !quick {
		// It may take long: what is answered already must not wait for that.
		if err := c.flush(); err != nil {
			h.release()
			return err
		}
	}
	h.call.hurried = true
	turn := c.beginTurn()
	defer c.slow.Done()
	reply, err := h.answer()
	if !c.endTurn(turn) {
		if err == nil && h.call.waits {
			reply, err = h.answerWaiting()
		}
		h.finish(reply, err)
		return errLed
	}
	switch {
	case err != nil:
		h.drop()
		return err
	case h.call.waits:
		h.leave()
		return nil
	case h.call.payload > 0, len(reply) > c.call.out.Room():
		if err := c.flush(); err != nil {
			h.release()
			return err
		}
		h.finish(reply, nil)
		return nil
	}
	if len(reply) > 0 {
		copy(c.call.out.Extend(len(reply)), reply)
		c.batch.add(h.call.kind)
	}
	h.release()
	return nil
}

// leave leaves the call to a goroutine of its own.
func (h *homeCall) leave() {
	h.conn.slow.Add(1)
	go func() {
		defer h.conn.slow.Done()
		h.finish(h.answerWaiting())
	}()
}

// answerWaiting is answer for a goroutine that may wait.
func (h *homeCall) answerWaiting() (reply []byte, err error) {
	h.call.hurried, h.call.waits = false, false
	h.call.out.Truncate(0)
	return h.answer()
}

// answer carries the call out and returns the reply, of which there may be none.
func (h *homeCall) answer() (reply []byte, err error) {
	debug.SetPanicOnFault(true)
	defer func() {
		if r := recover(); r != nil {
			err = h.conn.srv.panicked(r, h.call)
		}
	}()
	if !h.call.answerOnce(h.conn, h.msg) {
		return nil, nil
	}
	return h.call.out.Bytes(), nil
}

// finish sends the reply.
func (h *homeCall) finish(reply []byte, err error) {
	c := h.conn
	if err == nil && len(reply) > 0 {
		if err = c.sendHome(h.call, reply); err == nil {
			c.countOne(h.call)
		}
	}
	if err != nil {
		c.tcp.Close() // what was sent may be a part of a reply
		h.drop()
		return
	}
	h.release()
}

// sendHome sends a reply, and what belongs to it in a pipe.
func (c *conn) sendHome(call *call, reply []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out.waited = false
	n := call.payload
	if err := c.out.send(reply, n > 0); err != nil || n == 0 {
		return err
	}
	padding := wire.Pad(n)
	if err := c.out.sendPipe(call.pipe, n, padding > 0); err != nil {
		return err
	}
	call.pipe.held = 0
	return c.out.send(zeros[:padding], false)
}

// release gives back what the call has.
func (h *homeCall) release() {
	for _, recycle := range h.recycle {
		recycle()
	}
	if p := h.call.pipe; p != nil {
		h.conn.srv.pipes.put(p)
	}
	h.call.pipe = nil
	h.conn.srv.freeCall(h.call)
	h.giveBack()
}

// drop is release of a call that failed in a way that it must not, which may have left
// its buffers to others.
func (h *homeCall) drop() {
	if p := h.call.pipe; p != nil {
		h.conn.srv.pipes.drop(p)
	}
	h.giveBack()
}

func (h *homeCall) giveBack() {
	h.conn.homes.give(h.size)
	h.conn.srv.homes.give(h.size)
}

// quickMax is the largest WRITE that is expected to be answered at once: what is larger
// takes so long to copy that others of the connection gain by going on beside it.
const quickMax = 64 << 10

// quickInHome reports whether a call is one of those that seldom wait: they ask for
// what is in memory, or leave what they bring there.
func (c *call) quickInHome() bool {
	if c.header.Prog != progNFS {
		return true
	}
	switch gonfs.NFSProcedure(c.header.Proc) {
	case gonfs.NFSProcedureWrite:
		_, count, rest := c.peekIO()
		return count <= quickMax && rest.Uint32() == uint32(fs.Unstable)
	case gonfs.NFSProcedureRead:
		_, count, _ := c.peekIO()
		return count <= quickMax
	case gonfs.NFSProcedureReadDir, gonfs.NFSProcedureReadDirPlus:
		return false
	}
	return !mutates(c.header.Proc)
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

// refuseInHome appends the reply to a call about a home that has to come later. A
// call that has come before must not: the client would make it anew, under another
// xid, and it would be carried out twice. So it has the reply that it had, or none
// while it is under way, and the client sends it once more. It reports whether there is
// a reply.
func (c *call) refuseInHome() bool {
	var reply []byte
	if c.onceOnly() {
		args := c.args
		var known bool
		reply, known = c.dupCache().known(c.request(args.FixedOpaque(args.Len())))
		if known && reply == nil {
			return false
		}
	}
	mark := c.out.BeginRecord()
	defer func() { c.out.EndRecord(mark, 0) }()
	if reply != nil {
		copy(c.out.Extend(len(reply)), reply)
		return true
	}
	c.out.Accepted(c.header.XID, wire.Success)
	if c.header.Prog == progMount {
		c.out.Uint32(uint32(gonfs.MountStatusErrServerFault))
		return true
	}
	c.out.Uint32(uint32(gonfs.NFSStatusJukebox))
	for range c.absent() {
		c.out.Bool(false)
	}
	return true
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
// gives that back. A large record is not copied: it keeps the buffer that it
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
		_, count, _ := c.peekIO()
		return maxHeader + int(min(count, maxIO))
	case gonfs.NFSProcedureReadDir, gonfs.NFSProcedureReadDirPlus:
		return maxHeader + maxListing
	case gonfs.NFSProcedureReadlink:
		return maxHeader + maxLink
	default:
		return maxHeader
	}
}

// pipeInHome returns a pipe for the reply, if that is to go through one.
func (c *call) pipeInHome() *pipe {
	if c.header.Prog != progNFS || c.header.Proc != uint32(gonfs.NFSProcedureRead) {
		return nil
	}
	if off, count, rest := c.peekIO(); !rest.OK() || !pipeHolds(off, count) {
		return nil
	}
	return c.srv.pipes.get()
}

// peekIO reads the offset and the count of a READ or WRITE, and leaves the arguments to
// whoever carries it out. Rest is what is behind them.
func (c *call) peekIO() (off uint64, count uint32, rest wire.Decoder) {
	rest = c.args
	rest.Opaque(exports.MaxHandle)
	off, count = rest.Uint64(), rest.Uint32()
	return off, count, rest
}

// forkInHome returns a call of the same client, which answers into buf and shares
// nothing with c.
func (c *call) forkInHome(buf []byte) *call {
	s := get[call](&c.srv.pools.calls)
	s.srv, s.peer, s.local, s.remote, s.kind = c.srv, c.peer, c.local, c.remote, c.kind
	s.out.Reset(buf)
	return s
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
	defer func() { c.out.EndRecord(mark, c.payload+wire.Pad(c.payload)) }()
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
