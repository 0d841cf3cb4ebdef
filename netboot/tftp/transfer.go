package tftp

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// How transfers end, besides those ways that have names for others.
var (
	errSilent    = errors.New("tftp: the client does not answer any more")
	errPushedOut = errors.New("tftp: too many transfers that nobody goes on with; this one was silent longest")
	errStopped   = errors.New("tftp: the server stops")
)

// errUnreadable is what a client is told of an error that is none of its own.
var errUnreadable = &Error{CodeUndefined, "the file cannot be read: the server's log says why"}

const (
	// What is not acknowledged is sent again after the timeout, then after twice as
	// long, up to maxBackoff timeouts.
	maxBackoff = 8
	// patience is after how many timeouts a transfer ends in which nothing is
	// acknowledged: with a second, all was sent six times then. A client that asks
	// for a longer timeout gets two of those, up to limits.silence.
	patience = 30
)

// transfer is what one client is sent, from the request on. While Open is asked,
// it has no socket. It is half-open until the client acknowledges something.
type transfer struct {
	path    path
	query   *query
	began   time.Time
	half    *list.Element // in loop.half
	waiting *list.Element // in loop.waiting
	silent  *list.Element // in loop.silent

	fd     int // its socket, connected to the client; -1 if it has none
	slot   int32
	serial int32
	gso    bool // the kernel cuts what is sent into blocks
	pieces bool // packets may be cut to pieces underway
	over   bool

	file   File // nil until Open has answered
	size   int64
	block  int64 // bytes in a block
	window int64 // blocks that may be in flight
	blocks int64 // of the file: the last one is shorter than the others, and may be empty

	confirmation *confirmation // nil unless Confirmed is called, or will be

	// Blocks are counted from 1, without an end; on the wire they have 16 bits.
	acked int64 // the client has all up to this one
	next  int64 // to be sent

	// doubt is not 0 while ACKs may come twice because something was sent twice.
	doubt int

	buf     []byte // content at bufOff, of which bufLen is good
	bufOff  int64
	bufLen  int
	reading bool // a goroutine fills buf
	stuck   bool // the socket takes no more for now

	heard    time.Time     // when something was acknowledged
	deadline time.Time     // when to do something about silence
	interval time.Duration // from which the deadline is made
}

// request is what the client asked for.
func (t *transfer) request() Request {
	return Request{Name: t.query.name, From: t.path.from, Local: t.path.local}
}

// Buffers hold what is read at once. In windows of 16 blocks a transfer takes 16 % more
// CPU with 16 KiB, for fewer blocks go out by one call, and no less with 64.
const (
	bufferSize      = 32 << 10
	largeBufferSize = 64 << 10 // for blocks that need it
)

var (
	buffers      = sync.Pool{New: func() any { return new([bufferSize]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBufferSize]byte) }}
)

// takeBuffer gives t a buffer.
func (t *transfer) takeBuffer() {
	t.bufLen = 0
	if t.block > bufferSize {
		t.buf = largeBuffers.Get().(*[largeBufferSize]byte)[:]
	} else {
		t.buf = buffers.Get().(*[bufferSize]byte)[:]
	}
}

// release gives back what a transfer holds that is over.
func (t *transfer) release() {
	switch len(t.buf) {
	case bufferSize:
		buffers.Put((*[bufferSize]byte)(t.buf))
	case largeBufferSize:
		largeBuffers.Put((*[largeBufferSize]byte)(t.buf))
	}
	t.buf = nil
	if t.confirmation != nil {
		t.confirmation.release()
	} else {
		t.file.Close()
	}
}

// start sends the first packet of a transfer whose file is open.
func (l *loop) start(t *transfer, f File) {
	l.srv.stats.running.Add(1)
	t.file, t.size = f, f.Size()
	if err := l.connect(t); err != nil {
		fields := []zap.Field{zap.Stringer("client", t.path.from), zap.Stringer("from", t.path.local), zap.Error(err)}
		if unroutable(err) {
			l.say(zap.DebugLevel, "cannot send a file", fields...)
		} else {
			l.warn("cannot send a file", fields...)
		}
		l.end(t, err)
		return
	}
	q := t.query
	t.block, t.window = int64(q.block), int64(q.window)
	if q.has(optBlock) { // who did not ask cannot be told of smaller blocks, and takes the first for the last
		t.block = min(t.block, int64(t.path.largestBlock(t.fd)))
	}
	t.blocks = t.size/t.block + 1
	t.next = 1
	t.gso = l.gso && t.window > 1
	l.heardFrom(t)
	if len(q.options) == 0 {
		// It may be half-open for long, so it holds no more than the block that it is about.
		t.buf = make([]byte, t.block)
	}
	l.send(t)
}

// unroutable reports whether an address cannot be sent to. Who makes up where a
// request comes from brings that about.
func unroutable(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES)
}

// connect gives t a socket.
func (l *loop) connect(t *transfer) error {
	fd, err := t.path.connect()
	if err != nil {
		return err
	}
	slot := int32(len(l.slots))
	if n := len(l.free); n > 0 {
		slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		l.slots = append(l.slots, nil)
	}
	if len(l.slots)-len(l.free) == 1 {
		l.nextTick = l.now.Add(l.tickEvery())
	}
	l.serial++
	t.fd, t.slot, t.serial = fd, slot, l.serial
	l.slots[slot] = t
	return l.watch(fd, slot, t.serial)
}

// forget takes t from all lists and closes its socket.
func (l *loop) forget(t *transfer) {
	t.over = true
	delete(l.clients, t.path.from)
	if from := t.path.from.Addr(); l.at[from] > 1 {
		l.at[from]--
	} else {
		delete(l.at, from)
	}
	if t.silent != nil {
		l.silent.Remove(t.silent)
		t.silent = nil
	}
	l.notHalfOpen(t)
	if t.waiting != nil {
		l.waiting.Remove(t.waiting)
		t.waiting = nil
	}
	if t.fd >= 0 {
		unix.Close(t.fd)
		t.fd = -1
		l.slots[t.slot] = nil
		l.free = append(l.free, t.slot)
	}
}

func (l *loop) notHalfOpen(t *transfer) {
	if t.half != nil {
		l.half.Remove(t.half)
		t.half = nil
	}
}

// end ends a transfer, for a reason unless the client has everything.
func (l *loop) end(t *transfer, err error) {
	l.forget(t)
	stats := &l.srv.stats
	if t.file == nil {
		stats.refused.Add(1)
		return
	}
	stats.running.Add(-1)
	switch {
	case err == nil:
		stats.done.Add(1)
	case errors.Is(err, ErrAborted):
		stats.aborted.Add(1)
	default:
		stats.failed.Add(1)
	}
	if l.srv.Done != nil {
		r := Result{Request: t.request(), Size: t.size, Sent: min(t.acked*t.block, t.size), Took: l.now.Sub(t.began), Err: err}
		l.aside.do(func() { l.srv.Done(r) })
	}
	if t.reading {
		l.lost++ // until the read ends, the file and the buffer are its own
		return
	}
	t.release()
}

// fail ends a transfer whose file cannot be read, and tells the client.
func (l *loop) fail(t *transfer, err error) {
	l.warn("cannot read a file", zap.Stringer("client", t.path.from), zap.String("name", t.query.name), zap.Error(err))
	l.out = appendError(l.out[:0], errUnreadable)
	_ = send(t.fd, l.out)
	l.end(t, err)
}

// receive takes one packet of a transfer, and reports whether there was one.
func (l *loop) receive(t *transfer) bool {
	n, errno := receive(t.fd, l.in[:])
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return false
	case unix.EMSGSIZE:
		l.narrowed(t)
		return true
	default:
		l.end(t, errno) // ECONNREFUSED: nobody is at the client's port any more
		return true
	}
	switch op, number, message := parseReply(l.in[:n]); op {
	case opAck:
		l.acknowledged(t, number)
	case opError:
		l.confirm(t)
		l.end(t, fmt.Errorf("%w: error %d: %q", ErrAborted, number, message))
	}
	return true
}

// narrowed goes on after a router has told that packets are too large for it. The
// size of blocks is agreed on, so they are cut to pieces from then on; what was in
// flight is lost.
func (l *loop) narrowed(t *transfer) {
	t.gso, t.pieces = false, true
	t.path.allowPieces(t.fd)
	t.next, t.doubt = t.acked+1, 2
	l.send(t)
}

// confirm tells the file that the client has answered, if it has not before.
func (l *loop) confirm(t *transfer) {
	if f, ok := t.file.(Confirmer); ok && t.half != nil {
		c := newConfirmation(f)
		if l.aside.do(c.run) {
			t.confirmation = c
		}
	}
}

// acknowledged goes on after an ACK of a block, given by its last 16 bits.
func (l *loop) acknowledged(t *transfer, block uint16) {
	more := int64(block - uint16(t.acked))
	sent := t.next - 1 - t.acked
	switch {
	case more > sent:
		return // of long ago, or never sent
	case t.half != nil:
		if len(t.query.options) == 0 && more == 0 {
			return // nobody has that block yet
		}
		l.confirm(t)
		l.notHalfOpen(t)
		t.takeBuffer()
	case more == 0:
		// In lock-step an ACK that comes again must not make a block go out again,
		// or everything is sent twice from then on (RFC 1123, section 4.2.3.1). In
		// a window it says that the first block was lost (RFC 7440, section 4); but
		// it may also be the echo of a window that was sent twice.
		if t.window == 1 || t.doubt > 0 {
			return
		}
		t.doubt = 2
	case more < sent:
		t.doubt = 2
	case t.doubt > 0:
		t.doubt--
	}
	t.acked += more
	if t.acked == t.blocks {
		l.end(t, nil)
		return
	}
	t.next = t.acked + 1
	l.heardFrom(t)
	l.send(t)
}

// heardFrom restarts the clock of silence.
func (l *loop) heardFrom(t *transfer) {
	t.heard, t.interval = l.now, l.firstTimeout(t)
	l.wait(t)
	if t.silent == nil {
		t.silent = l.silent.PushBack(t)
	} else {
		l.silent.MoveToBack(t.silent)
	}
}

// wait sets when to do something if t's client stays silent.
func (l *loop) wait(t *transfer) {
	t.deadline = l.now.Add(min(t.interval, l.patienceFor(t)-l.now.Sub(t.heard)))
}

// patienceFor is after how long a silence a transfer ends.
func (l *loop) patienceFor(t *transfer) time.Duration {
	return min(max(patience*l.limits.timeout, 2*l.firstTimeout(t)), l.limits.silence)
}

func (l *loop) firstTimeout(t *transfer) time.Duration {
	if t.query.timeout > 0 {
		return time.Duration(t.query.timeout) * time.Second
	}
	return l.limits.timeout
}

// expired does something about a client from which nothing came.
func (l *loop) expired(t *transfer) {
	switch {
	case l.now.Sub(t.heard) >= l.patienceFor(t):
		l.end(t, errSilent)
		return
	case t.stuck:
		t.stuck = false
		l.wait(t)
	default:
		t.interval = min(2*t.interval, max(maxBackoff*l.limits.timeout, l.firstTimeout(t)))
		l.wait(t)
		t.next = t.acked + 1
		t.doubt = 2
	}
	l.send(t)
}

// send sends what the client may have now: the answer to its options, or blocks
// up to the end of the window.
func (l *loop) send(t *transfer) {
	if t.half != nil && len(t.query.options) > 0 {
		l.out = t.query.appendOack(l.out[:0], t.size, t.block)
		l.sent(t, send(t.fd, l.out))
		return
	}
	for last := min(t.acked+t.window, t.blocks); t.next <= last && !t.reading; {
		off := (t.next - 1) * t.block
		have := t.bufLen - int(off-t.bufOff)
		if off < t.bufOff || have < int(min(t.block, t.size-off)) {
			if !l.fill(t, off) {
				return
			}
			have = t.bufLen
		}
		// Blocks that the buffer has all of, the last one of the file included.
		n := int64(have) / t.block
		if off+int64(have) == t.size {
			n++
		}
		n = min(n, last-t.next+1)
		bytes, n, errno := l.batch.send(t, n)
		if !l.sent(t, errno) {
			return
		}
		t.next += n
		l.srv.stats.bytes.Add(uint64(bytes))
	}
}

// sent looks at how sending ended, and reports whether more may be sent. What
// did not get out is like what was lost underway: it is sent again in time.
func (l *loop) sent(t *transfer, errno unix.Errno) bool {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EINTR:
		t.stuck = true
		t.deadline = l.now
		return false
	case unix.ECONNREFUSED: // which an earlier packet met
		l.end(t, errno)
		return false
	case unix.EINVAL, unix.EMSGSIZE, unix.EIO:
		if errno == unix.EMSGSIZE && !t.pieces {
			l.narrowed(t)
			return false
		}
		if t.gso { // the path takes smaller packets than it did, or the device cannot do it
			t.gso = false
			l.send(t)
			return false
		}
	}
	return true
}

// fill reads into the buffer what is at off, and reports whether it is there. If
// that needs a disk, a goroutine goes on with it.
func (l *loop) fill(t *transfer, off int64) bool {
	p := t.buf[:min(int64(len(t.buf)), t.size-off)]
	t.bufOff, t.bufLen = off, 0
	n, err := l.readAt(t, p, off, true)
	if errors.Is(err, fs.ErrWouldBlock) {
		t.reading = true
		l.workers.Add(1)
		go func() {
			defer l.workers.Done()
			debug.SetPanicOnFault(true)
			l.disk <- struct{}{}
			n, err := l.readAt(t, p, off, false)
			<-l.disk
			l.mail.post(letter{t: t, n: n, err: err})
		}()
		return false
	}
	return l.filled(t, n, err)
}

// readAt reads a file. A panic is an error of that file.
func (l *loop) readAt(t *transfer, p []byte, off int64, nowait bool) (n int, err error) {
	defer l.recover(t, &err)
	return t.file.ReadAt(p, off, nowait)
}

// filled looks at what a read into the buffer brought. It is enough if the next
// block is there.
func (l *loop) filled(t *transfer, n int, err error) bool {
	t.bufLen = n
	if int64(n) >= min(t.block, t.size-t.bufOff) {
		return true
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF // it is shorter than it said
	}
	l.fail(t, err)
	return false
}

// haveRead goes on after a read that had to wait.
func (l *loop) haveRead(t *transfer, n int, err error) {
	t.reading = false
	if t.over {
		l.lost--
		t.release()
		return
	}
	if l.filled(t, n, err) {
		l.heardFrom(t)
		l.send(t)
	}
}

// batch is what a call sends: headers, and content where it lies in the buffer.
// A window goes out by one call, which the kernel cuts into packets (UDP_SEGMENT).
type batch struct {
	message unix.Msghdr
	parts   [2 * maxWindow]unix.Iovec
	headers [maxWindow][headerSize]byte
	segment segment
}

// segment is the control message that says how long the packets are.
type segment struct {
	header unix.Cmsghdr
	size   [2]byte
	_      [6]byte
}

// maxDatagram is how much UDP takes at once, cut into packets or not.
const maxDatagram = 65535 - 40 - 8

func (b *batch) init() {
	b.message.Iov = &b.parts[0]
	for i := range b.headers {
		b.parts[2*i].Base = &b.headers[i][0]
		b.parts[2*i].SetLen(headerSize)
		b.headers[i][1] = opData
	}
	b.segment.header.Level, b.segment.header.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	b.segment.header.SetLen(unix.CmsgLen(len(b.segment.size)))
}

// send sends up to n blocks from t.next on, all of which are in the buffer, and
// returns how many, and the bytes in them.
func (b *batch) send(t *transfer, n int64) (bytes, blocks int64, errno unix.Errno) {
	off := (t.next - 1) * t.block
	if start := off - t.bufOff - headerSize; t.window == 1 && start >= 0 {
		// What is before the block is acknowledged, so the header can be written over
		// it: one piece takes 4 % less CPU than two.
		bytes = min(t.block, t.size-off)
		p := t.buf[start:][:headerSize+bytes]
		p[0], p[1], p[2], p[3] = 0, opData, byte(t.next>>8), byte(t.next)
		return bytes, 1, send(t.fd, p)
	}
	if !t.gso {
		n = 1
	}
	n = max(1, min(n, maxWindow, maxDatagram/(headerSize+t.block)))
	for i := range n {
		content := t.buf[off-t.bufOff:][:min(t.block, t.size-off)]
		number := uint16(t.next + i)
		b.headers[i][2], b.headers[i][3] = byte(number>>8), byte(number)
		part := &b.parts[2*i+1]
		part.Base = unsafe.SliceData(content)
		part.SetLen(len(content))
		off += int64(len(content))
		bytes += int64(len(content))
	}
	b.message.SetIovlen(int(2 * n))
	b.message.Control = nil
	b.message.SetControllen(0)
	if n > 1 {
		binary.NativeEndian.PutUint16(b.segment.size[:], uint16(headerSize+t.block))
		b.message.Control = (*byte)(unsafe.Pointer(&b.segment))
		b.message.SetControllen(unix.CmsgSpace(len(b.segment.size)))
	}
	return bytes, n, sendMessage(t.fd, &b.message)
}
