package peer

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

const (
	// limitCopy is the largest payload that is copied into the write of its head.
	// For larger ones the calls of sendfile cost less than touching the bytes.
	limitCopy   = 32 << 10
	limitBuffer = 64 << 10
)

// limitLoop answers the connections of one core.
type limitLoop struct {
	epoll int
	pack  pack

	mu    sync.Mutex // for conns, which the accepting goroutine adds to
	conns map[int32]*limitConn
}

type limitConn struct {
	*limitLoop
	fd   int
	in   []byte // has been received and not been answered
	buf  [limitBuffer]byte
	out  []byte // heads and small payloads that have not been sent
	off  int64  // where the rest of a large payload is, which follows out
	left int
	full bool // the socket was full, and the loop waits until it is not
}

// add takes a connection over. The runtime's descriptor of it must be gone before the
// loop sees the connection: as long as one is open, epoll reports on all (epoll(7)).
func (l *limitLoop) add(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	c := &limitConn{limitLoop: l}
	controlErr := raw.Control(func(fd uintptr) {
		c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(controlErr, err, tcp.Close()); err != nil {
		return err
	}
	l.mu.Lock()
	l.conns[int32(c.fd)] = c
	l.mu.Unlock()
	return c.watch(unix.EPOLL_CTL_ADD, unix.EPOLLIN)
}

func (c *limitConn) watch(op int, events uint32) error {
	return unix.EpollCtl(c.epoll, op, c.fd, &unix.EpollEvent{Events: events, Fd: int32(c.fd)})
}

// run answers calls until something is broken.
func (l *limitLoop) run() error {
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := l.wait(events)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			l.mu.Lock()
			c := l.conns[e.Fd]
			l.mu.Unlock()
			if err := c.serve(); err != nil {
				if err := l.drop(c); err != nil {
					return err
				}
			}
		}
	}
}

// drop ends a connection. Closing it does not yet silence it: the call that added it
// may still hold the file, on its way out of the kernel.
func (l *limitLoop) drop(c *limitConn) error {
	if err := c.watch(unix.EPOLL_CTL_DEL, 0); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.conns, int32(c.fd))
	l.mu.Unlock()
	return unix.Close(c.fd)
}

// wait waits for events. It looks for some that are there already before it makes a
// call that may wait, of which the runtime must know.
func (l *limitLoop) wait(events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno == 0 && n > 0 {
		return int(n), nil
	}
	return unix.EpollWait(l.epoll, events, -1)
}

// serve answers what has arrived, as far as the socket takes it. The end of a
// connection is an error.
func (c *limitConn) serve() error {
	if drained, err := c.answer(); !drained || err != nil {
		return err
	}
	n, err := raw(unix.SYS_READ, c.fd, c.buf[copy(c.buf[:], c.in):], 0)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case n == 0:
		return io.EOF
	}
	c.in = c.buf[:len(c.in)+n]
	_, err = c.answer()
	return err
}

// answer answers the calls that are complete and reports whether the socket has
// taken all of it.
func (c *limitConn) answer() (drained bool, err error) {
	for {
		for c.left == 0 && len(c.out) < limitBuffer {
			more, err := c.next()
			if err != nil {
				return false, err
			}
			if !more {
				break
			}
		}
		if len(c.out) == 0 && c.left == 0 {
			return true, nil
		}
		if sent, err := c.send(); !sent || err != nil {
			return false, err
		}
	}
}

// errLimitCall says that a call is not one of the bench.
var errLimitCall = errors.New("a call that makes no sense")

// next appends the reply to the next call, if that is there.
func (c *limitConn) next() (bool, error) {
	if len(c.in) < wire.MarkSize {
		return false, nil
	}
	size, last := wire.ParseMark(c.in)
	if !last || size < limitArgs || size > limitBuffer-wire.MarkSize {
		return false, errLimitCall
	}
	if len(c.in) < wire.MarkSize+int(size) {
		return false, nil
	}
	call := c.in[wire.MarkSize:]
	c.in = call[size:]
	be := binary.BigEndian
	head, payload, off := be.Uint32(call[limitHead:]), be.Uint32(call[limitPayload:]), be.Uint64(call[limitOffset:])
	if head < limitMinHead || head > limitMaxHead || payload > limitMaxPayload ||
		off > c.pack.size || uint64(payload) > c.pack.size-off {
		return false, errLimitCall
	}
	const lastFragment, reply = 1 << 31, 1
	c.out = be.AppendUint32(c.out, lastFragment|(head+payload))
	c.out = append(c.out, call[limitXID:limitHead]...)
	c.out = be.AppendUint32(c.out, reply)
	c.out = append(c.out, make([]byte, head-8)...)
	if payload > limitCopy {
		c.off, c.left = int64(off), int(payload)
		return true, nil
	}
	return true, c.copyIn(int(payload), int64(off))
}

// copyIn appends bytes of the pack.
func (c *limitConn) copyIn(n int, off int64) error {
	start := len(c.out)
	c.out = slices.Grow(c.out, n)[:start+n]
	for done := 0; done < n; {
		got, err := readPack(c.pack.fd, c.out[start+done:], off+int64(done))
		if err != nil && err != unix.EINTR {
			return err
		}
		if got == 0 && err == nil {
			return io.ErrUnexpectedEOF // the pack was cut off
		}
		done += max(got, 0)
	}
	return nil
}

// readPack reads what is in memory past the runtime's bookkeeping, as the server does
// (fs/image/content.go), and else waits for the disk.
func readPack(fd int, p []byte, off int64) (int, error) {
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(off>>32), unix.RWF_NOWAIT)
	if errno == 0 && n > 0 {
		return int(n), nil
	}
	return unix.Pread(fd, p, off)
}

// send sends what is to be sent and reports whether the socket took it all. If it
// did not, the loop will come back when it can take more.
func (c *limitConn) send() (bool, error) {
	for len(c.out) > 0 || c.left > 0 {
		var n int
		var err error
		if len(c.out) > 0 {
			n, err = c.sendOut()
		} else {
			n, err = unix.Sendfile(c.fd, c.pack.fd, &c.off, c.left)
			c.left -= max(n, 0)
		}
		switch {
		case err == unix.EAGAIN:
			return false, c.await(true)
		case err == unix.EINTR:
		case err != nil:
			return false, err
		case n == 0:
			return false, io.ErrUnexpectedEOF // the pack was cut off
		}
	}
	return true, c.await(false)
}

// sendOut sends from memory. What follows by sendfile goes out in the same packets.
func (c *limitConn) sendOut() (int, error) {
	flags := unix.MSG_NOSIGNAL
	if c.left > 0 {
		flags |= unix.MSG_MORE
	}
	n, err := raw(unix.SYS_SENDTO, c.fd, c.out, flags)
	c.out = c.out[:copy(c.out, c.out[max(n, 0):])]
	return n, err
}

// raw makes a system call on a socket, which does not wait, past the runtime's
// bookkeeping for those that might: as the server does (nfs/socket.go).
func raw(call uintptr, fd int, p []byte, flags int) (int, error) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// await makes the loop wait for room in the socket, or for calls.
func (c *limitConn) await(room bool) error {
	if room == c.full {
		return nil
	}
	c.full = room
	if room {
		return c.watch(unix.EPOLL_CTL_MOD, unix.EPOLLOUT)
	}
	return c.watch(unix.EPOLL_CTL_MOD, unix.EPOLLIN)
}
