package nfs

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// A socket is used through its descriptor, in callbacks that the network poller
// runs when it is ready, for two reasons: a connection must know when a read
// would block, to give its buffers back first; and replies need MSG_MORE and
// sendfile(2). The callbacks are made once for each connection, so that a read
// or a write allocates nothing.
//
// Deadlines are set only where something is about to block, and left alone
// where they are near enough: setting one costs as much as answering a call.

// deadline is a deadline of a socket, with when it was set to.
type deadline struct {
	set func(time.Time) error
	at  time.Time
}

// within moves the deadline to limit after now, unless it is at least half of
// that away already.
func (d *deadline) within(now time.Time, limit time.Duration) {
	if left := d.at.Sub(now); left < limit/2 || left > limit {
		d.until(now.Add(limit))
	}
}

// until moves the deadline to t. An error means that the socket is closed, which
// the next use of it will tell.
func (d *deadline) until(t time.Time) {
	if !d.at.Equal(t) {
		d.at = t
		_ = d.set(t)
	}
}

// clear takes the deadline away, whatever it is.
func (d *deadline) clear() {
	d.at = time.Time{}
	_ = d.set(d.at)
}

// output sends replies. Its owner makes sure that only one goroutine does so at
// a time.
type output struct {
	raw      syscall.RawConn
	deadline deadline
	limit    time.Duration
	waited   bool // the reply in hand has blocked once

	// What the callbacks work on, and how they ended.
	bytes []byte
	more  bool
	file  int
	off   int64
	left  int64
	err   error

	sent *atomic.Uint64 // bytes, of all connections that count there

	onBytes, onFile, onPipe func(fd uintptr) bool
}

func (o *output) init(tcp *net.TCPConn, raw syscall.RawConn, limit time.Duration, sent *atomic.Uint64) {
	o.raw, o.limit, o.sent = raw, limit, sent
	o.deadline.set = tcp.SetWriteDeadline
	o.onBytes, o.onFile, o.onPipe = o.sendBytes, o.sendFile, o.emptyPipe
}

// send sends the bytes of b; more says that the rest of the same reply follows
// at once, so that the kernel need not send a short segment.
func (o *output) send(b []byte, more bool) error {
	o.bytes, o.more = b, more
	err := o.run(o.onBytes)
	o.bytes = nil
	return err
}

// zeros is what holes are sent from. Nobody writes to it.
var zeros [64 << 10]byte

// sendSpan sends the bytes of a span.
func (o *output) sendSpan(s *fs.Span, more bool) error {
	if s.File == nil {
		for n := s.Len; n > 0; {
			k := min(n, int64(len(zeros)))
			n -= k
			if err := o.send(zeros[:k], more || n > 0); err != nil {
				return err
			}
		}
		return nil
	}
	o.file, o.off, o.left = int(s.File.Fd()), s.Off, s.Len
	return o.run(o.onFile)
}

// sendPipe sends the n bytes that are in a pipe.
func (o *output) sendPipe(p *pipe, n int, more bool) error {
	o.file, o.left, o.more = p.out, int64(n), more
	return o.run(o.onPipe)
}

// run calls a callback until it has ended. A deadline that is over although this
// reply has not blocked was left behind by an earlier one.
func (o *output) run(callback func(uintptr) bool) error {
	err := o.raw.Write(callback)
	if errors.Is(err, os.ErrDeadlineExceeded) && !o.waited {
		o.deadline.clear()
		err = o.raw.Write(callback)
	}
	if err == nil {
		err = o.err
	}
	o.err = nil
	return err
}

// block prepares for waiting until the socket takes more. The limit is for a
// whole reply, so a client that takes a byte now and then gains nothing.
func (o *output) block() bool {
	if !o.waited {
		o.waited = true
		o.deadline.within(time.Now(), o.limit)
	}
	return false
}

func (o *output) sendBytes(fd uintptr) bool {
	for len(o.bytes) > 0 {
		n, err := o.sendSome(int(fd))
		switch err {
		case nil:
			o.bytes = o.bytes[n:]
			o.sent.Add(uint64(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return o.block()
		default:
			o.err = err
			return true
		}
	}
	return true
}

// Sockets do not block, so reading and writing them goes past the runtime's
// bookkeeping for system calls that might (RawSyscall). There, sysmon takes
// the processor away from every call of more than 20 us and wakes another thread
// to use it, most of which is wasted: GETATTR took 1.48 us of CPU and takes 1.10
// with 4 connections x 16 in flight, 12.5 and 10.0 us with 64 x 1 (bench race).
// sendfile may meet a page that has just left memory, and gains nothing: it is
// called in the ordinary way.

// sendSome is send(2).
func (o *output) sendSome(fd int) (int, error) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if o.more {
		flags |= unix.MSG_MORE
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&o.bytes[0])), uintptr(len(o.bytes)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// receive is read(2).
func receive(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (o *output) sendFile(fd uintptr) bool {
	return o.sendRest(func() (int, error) { return unix.Sendfile(int(fd), o.file, &o.off, int(o.left)) })
}

func (o *output) emptyPipe(fd uintptr) bool {
	flags := unix.SPLICE_F_NONBLOCK
	if o.more {
		flags |= unix.SPLICE_F_MORE
	}
	return o.sendRest(func() (int, error) {
		n, err := unix.Splice(o.file, nil, int(fd), nil, int(o.left), flags)
		return int(n), err // which it counts in another type where words have 32 bits
	})
}

// sendRest sends what is left by a function that sends some of it.
func (o *output) sendRest(some func() (int, error)) bool {
	for o.left > 0 {
		n, err := some()
		switch {
		case n > 0:
			o.left -= int64(n)
			o.sent.Add(uint64(n))
		case err == nil:
			o.err = io.ErrUnexpectedEOF // the file is shorter than its tree says
			return true
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return o.block()
		default:
			o.err = err
			return true
		}
	}
	return true
}
