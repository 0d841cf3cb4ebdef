package nfs

import (
	"io"
	"unsafe"

	gonfs "github.com/willscott/go-nfs"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// The data of a large WRITE to a home goes from the socket to the page cache through a
// pipe, by splice(2), so that it is copied once, and not twice, and is not summed: one of
// 1 MiB took 950 us of CPU and takes 740 so, and with 4 connections x 16 in flight 1000 and
// 800, where nfs-ganesha took 990 and 1270 (bench homes).
//
// What is in the pipe are the pages that the network has put the data in. How many there
// are for a WRITE depends on the network: each segment takes at least one.

// pipeRest makes what is still to come of the record in hand go to a pipe, and what has
// come of its data, too, if it is a WRITE that this is good for.
func (c *conn) pipeRest() bool {
	head, rest, ok := c.in.partial()
	if !ok {
		return false
	}
	if c.pipeless > 0 {
		c.pipeless--
		return false
	}
	if c.call == nil {
		c.call = c.srv.newCall(c.peer, c.local, c.remote)
	}
	at := c.call.pipeableData(head, len(head)+rest)
	if at == 0 {
		return false
	}
	p := c.srv.pipes.get()
	if p == nil {
		return false
	}
	n, err := unix.Write(p.in, head[at:])
	if err != nil || n < len(head)-at {
		c.srv.pipes.drop(p)
		return false
	}
	p.held = n
	c.srv.incoming.take(largeSize)
	c.data = p
	c.in.holds(c.in.buf, at+dupPrefix)
	return true
}

// pipeableData returns where the data begins in a record of that size, of which head has
// come, if the data is good for a pipe, or else 0. A WRITE that is to be on the disk is
// not: it may have to be done again (fs/hostdir).
func (c *call) pipeableData(head []byte, size int) int {
	c.args = wire.NewDecoder(head)
	h := &c.header
	if h.Decode(&c.args) != wire.Accept || h.Prog != progNFS || h.Vers != nfsVersion || h.Proc != uint32(gonfs.NFSProcedureWrite) {
		return 0
	}
	if !c.aboutHome() || !c.inHome {
		return 0
	}
	_, count, rest := c.peekIO()
	stable, length := rest.Uint32(), rest.Uint32()
	at := len(head) - rest.Len()
	if rest.Len() < dupPrefix || stable != uint32(fs.Unstable) || count != length || count <= quickMax || count > maxIO || count%4 != 0 || uint64(size) != uint64(at)+uint64(count) {
		return 0
	}
	return at
}

// readToPipe is read for what goes to a pipe.
func (c *conn) readToPipe(fd uintptr) bool {
	c.readErr = c.fillPipe(int(fd))
	if c.readErr == unix.EAGAIN {
		c.wakeFor(int(fd), c.in.missing)
		return c.block()
	}
	c.wakeFor(int(fd), 1)
	return true
}

// fillPipe moves what there is to the pipe, and ends with EAGAIN if that is not all.
func (c *conn) fillPipe(fd int) error {
	for full := false; c.in.missing > 0; {
		n, err := spliceIn(fd, c.data.in, c.in.missing)
		switch {
		case n > 0:
			full = false
			c.data.held += n
			c.in.missing -= n
			c.received(n)
		case err == nil:
			return io.EOF
		case err == unix.EINTR:
		case err == unix.EAGAIN && !readable(fd):
			return err
		case err == unix.EAGAIN && !full:
			full = true // unless there was nothing to read before
		case err == unix.EAGAIN, err == unix.EINVAL, err == unix.ENOSYS, err == unix.EPERM:
			return c.unpipe() // it is full, or the host cannot do this
		default:
			return err
		}
	}
	return nil
}

// wakeFor has the connection wait until so many bytes can be read. To be woken for each
// segment of a WRITE of 1 MiB takes an eighth more CPU (bench homes, 1x1).
func (c *conn) wakeFor(fd, n int) {
	if n != c.wokenFor && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) == nil {
		c.wokenFor = n
	}
}

// unpipe goes on with the record in hand in a buffer, and with some that follow.
func (c *conn) unpipe() error {
	c.pipeless = unpiped
	p := c.data
	head, _, _ := c.in.partial()
	large := get[largeBuffer](&c.srv.pools.large)
	at := copy(large[:], head[:len(head)-dupPrefix]) // the rest of it is in the pipe, too
	n := at + p.held
	if err := p.readAll(large[at:]); err != nil {
		return err
	}
	c.in.holds(large[:], n)
	c.srv.pools.small.Put(c.small)
	c.small, c.large = nil, large // which has the room that the pipe had
	c.data = nil
	c.srv.pipes.put(p)
	return nil
}

// takeData returns the pipe that the data of the record in hand is in, or nil. The caller
// is to put it back.
func (c *conn) takeData() *pipe {
	p := c.data
	if p != nil {
		c.data = nil
		c.srv.incoming.give(largeSize)
	}
	return p
}

// dropData gives back the pipe, if there is one, with what is in it.
func (c *conn) dropData() {
	if p := c.takeData(); p != nil {
		c.srv.pipes.put(p)
	}
}

// spliceIn is splice(2) from a socket, which does not block (see sendSome), to a pipe.
func spliceIn(fd, pipe, n int) (int, error) {
	moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(fd), 0, uintptr(pipe), 0, uintptr(n), unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), nil
}

// readable reports whether there is something to read from a socket.
func readable(fd int) bool {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	return errno == 0 && n > 0
}

// unpiped is how many WRITEs go through buffers after one had no place in a pipe.
const unpiped = 256
