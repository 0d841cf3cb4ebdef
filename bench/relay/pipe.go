package relay

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// chunkSize is how much is forwarded in one piece: the reply to a READ of 128 KiB.
const chunkSize = 132 << 10

// chunk is bytes under way, or with none of them the end of a stream.
type chunk struct {
	to   *pipe
	buf  *[chunkSize]byte // nil at the end of a stream
	data []byte           // of buf
}

var buffers = sync.Pool{New: func() any { return new([chunkSize]byte) }}

func (c chunk) deliver() { c.to.deliver(c) }

func (c *chunk) free() {
	if c.buf != nil {
		buffers.Put(c.buf)
	}
}

// pipe is one direction of a connection.
type pipe struct {
	line     *line[chunk]
	from, to *net.TCPConn
	rawFrom  syscall.RawConn
	rawTo    syscall.RawConn
	ended    *sync.WaitGroup // done when the end of the stream was delivered

	// Of the goroutine that reads.
	buf    *[chunkSize]byte
	n      int
	failed bool

	mu       sync.Mutex // guards the rest
	less     sync.Cond  // signalled when underway shrinks
	underway int        // bytes that were read and not written yet
	backlog  []chunk    // due, but the receiver does not take them yet
	writing  bool       // a goroutine writes the backlog
	broken   bool       // the receiver is gone: what comes is thrown away
}

func newPipe(l *line[chunk], from, to *net.TCPConn, ended *sync.WaitGroup) (*pipe, error) {
	p := &pipe{line: l, from: from, to: to, ended: ended}
	p.less.L = &p.mu
	var err error
	if p.rawFrom, err = from.SyscallConn(); err != nil {
		return nil, err
	}
	p.rawTo, err = to.SyscallConn()
	return p, err
}

// read puts on the line what arrives, until the stream ends.
func (p *pipe) read() {
	for p.rawFrom.Read(p.readOnce) == nil && !p.failed {
		p.reserve(p.n)
		p.line.put(chunk{to: p, buf: p.buf, data: p.buf[:p.n]})
	}
	p.line.put(chunk{to: p})
}

// readOnce is what the runtime calls when there may be something to read. Until
// there is, the pipe holds no buffer.
func (p *pipe) readOnce(fd uintptr) (done bool) {
	p.buf = buffers.Get().(*[chunkSize]byte)
	var err error
	for {
		if p.n, err = unix.Read(int(fd), p.buf[:]); err != unix.EINTR {
			break
		}
	}
	if p.n > 0 {
		return true
	}
	buffers.Put(p.buf)
	if err == unix.EAGAIN {
		return false
	}
	p.failed = true
	return true
}

// reserve counts bytes that are about to be under way, and waits until they are not
// too many.
func (p *pipe) reserve(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.underway += n; p.underway > window && !p.broken; {
		p.less.Wait()
	}
}

// deliver passes a chunk on that is due. It does not wait for the receiver: what that
// does not take at once another goroutine sees to.
func (p *pipe) deliver(c chunk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.writing {
		c.data = p.tryWrite(c.data)
		if len(c.data) == 0 {
			p.finish(c)
			return
		}
		p.writing = true
		go p.drain()
	}
	p.backlog = append(p.backlog, c)
}

// tryWrite writes what the receiver takes without waiting, and returns the rest.
func (p *pipe) tryWrite(data []byte) (rest []byte) {
	if len(data) == 0 || p.broken {
		return nil
	}
	var n int
	var errno error
	err := p.rawTo.Write(func(fd uintptr) bool {
		n, errno = unix.Write(int(fd), data)
		return true
	})
	if err != nil || errno != nil && errno != unix.EAGAIN && errno != unix.EINTR {
		p.breakOff()
		return nil
	}
	n = max(n, 0)
	p.took(n)
	return data[n:]
}

// drain writes the backlog.
func (p *pipe) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.backlog) > 0 {
		c := p.backlog[0]
		p.backlog = p.backlog[1:]
		if !p.broken && len(c.data) > 0 {
			p.mu.Unlock()
			_, err := p.to.Write(c.data)
			p.mu.Lock()
			if err != nil {
				p.breakOff()
			}
			p.took(len(c.data))
		}
		p.finish(c)
	}
	p.writing = false
}

// took counts bytes that have arrived.
func (p *pipe) took(n int) {
	p.underway -= n
	p.less.Signal()
}

// breakOff is for a receiver that is gone: the sender is told, and what it has sent
// is thrown away.
func (p *pipe) breakOff() {
	p.broken = true
	p.less.Signal()
	p.from.CloseRead()
}

// finish is for a chunk that has been written.
func (p *pipe) finish(c chunk) {
	if c.buf == nil { // the end
		p.to.CloseWrite()
		p.ended.Done()
		return
	}
	c.free()
}
