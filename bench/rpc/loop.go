package rpc

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Loop has many connections and waits for all of them at once, for one goroutine.
// A goroutine for each would cost a failed read and two switches for each wait.
type Loop struct {
	epoll  int
	lines  []*Line // by their number; nil where one was closed
	free   []int
	events [128]unix.EpollEvent
	reply  Reply
	spare  [][]byte // buffers of streams that have nothing in theirs
}

// Line is a connection of a Loop.
type Line struct {
	Caller
	// Number is unique among the open lines of the loop, and small.
	Number int

	loop    *Loop
	fd      int
	stream  Stream
	out     []byte // queued
	sent    int    // how much of that has gone out already
	stuck   bool   // the socket's buffer was full
	removed bool
}

// Handler is told what happens on the lines of a Loop.
type Handler interface {
	// Reply takes a reply that arrived at a time, and may queue calls. The
	// reply is valid only during the call.
	Reply(l *Line, r *Reply, at time.Time)
	// Broken says that the line came to an end, of which io.EOF is one. It is
	// closed already.
	Broken(l *Line, err error)
}

// NewLoop returns a Loop that has no lines.
func NewLoop() (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &Loop{epoll: fd}, nil
}

// Close closes all lines.
func (p *Loop) Close() error {
	for _, l := range p.lines {
		if l != nil {
			l.Close()
		}
	}
	return unix.Close(p.epoll)
}

// Dial connects to the server at host:port. The Timeout of the options bounds
// that only: the user of a loop sees for himself that replies stay away.
func (p *Loop) Dial(addr string, o Options) (*Line, error) {
	c, err := Dial(addr, o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l := &Line{Caller: c.Caller, loop: p, Number: len(p.lines)}
	if l.fd, err = c.duplicate(); err != nil {
		return nil, err
	}
	if n := len(p.free); n > 0 {
		l.Number, p.free = p.free[n-1], p.free[:n-1]
	} else {
		p.lines = append(p.lines, nil)
	}
	p.lines[l.Number] = l
	if err := l.watch(unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// duplicate returns a descriptor of the connection that the runtime does not
// watch. It does not block.
func (c *Conn) duplicate() (fd int, err error) {
	failed := c.raw.Control(func(own uintptr) {
		fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(failed, err)
}

func (l *Line) watch(op int, events uint32) error {
	return unix.EpollCtl(l.loop.epoll, op, l.fd, &unix.EpollEvent{Events: events, Fd: int32(l.Number)})
}

// Close closes the line.
func (l *Line) Close() error {
	if l.removed {
		return nil
	}
	l.removed = true
	l.loop.lines[l.Number] = nil
	l.loop.free = append(l.loop.free, l.Number)
	return unix.Close(l.fd)
}

// Buffer returns what is queued, for the Append methods: Queue takes it back.
//
//	l.Queue(l.AppendGetattr(l.Buffer(), xid, handle))
func (l *Line) Buffer() []byte { return l.out }

// Queue makes b, which is Buffer with calls appended, what Flush or the end of
// the line's turn sends.
func (l *Line) Queue(b []byte) { l.out = b }

// Flush sends what is queued, in one write, or as much as the socket takes: the
// rest goes out in later turns.
func (l *Line) Flush() error {
	if len(l.out) == 0 {
		return nil
	}
	n, err := unix.Write(l.fd, l.out[l.sent:])
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return err
	}
	// What is left stays where it is until half of all has gone: WRITEs make it
	// many megabytes, which a full socket takes in small pieces.
	if l.sent += max(n, 0); l.sent > len(l.out)/2 {
		l.out = l.out[:copy(l.out, l.out[l.sent:])]
		l.sent = 0
	}
	if stuck := len(l.out) > 0; stuck != l.stuck {
		l.stuck = stuck
		events := uint32(unix.EPOLLIN)
		if stuck {
			events |= unix.EPOLLOUT
		}
		return l.watch(unix.EPOLL_CTL_MOD, events)
	}
	return nil
}

// Turn waits until something arrives, at most for a time, and tells h what did.
func (p *Loop) Turn(wait time.Duration, h Handler) error {
	n, err := unix.EpollWait(p.epoll, p.events[:], int((wait + time.Millisecond - 1).Milliseconds()))
	if err != nil && err != unix.EINTR {
		return err
	}
	for i := range max(n, 0) {
		l := p.lines[p.events[i].Fd]
		if l == nil {
			continue // closed by what another line was told in this turn
		}
		if err := l.serve(h); err != nil {
			l.Close()
			h.Broken(l, err)
		}
	}
	return nil
}

// serve takes what has arrived, and sends what that leads to. Between its turns a
// line has no buffer unless half a reply is in it, so a thousand lines share a few
// that stay in the processor's cache.
func (l *Line) serve(h Handler) error {
	l.loop.lend(&l.stream)
	defer l.loop.reclaim(&l.stream)
	for !l.removed {
		want := l.stream.wants()
		n, err := l.stream.ReadFrom(l.fd)
		switch {
		case err == unix.EAGAIN:
			return l.Flush()
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		}
		if err := l.take(h); err != nil {
			return err
		}
		if n < want {
			return l.Flush() // there was no more
		}
	}
	return nil
}

func (p *Loop) lend(s *Stream) {
	if n := len(p.spare); n > 0 && s.buf == nil {
		s.buf, p.spare = p.spare[n-1], p.spare[:n-1]
	}
}

func (p *Loop) reclaim(s *Stream) {
	if s.r == s.w && s.buf != nil {
		p.spare = append(p.spare, s.buf)
		s.buf = nil
	}
}

// take hands over the replies that are complete.
func (l *Line) take(h Handler) error {
	now := time.Now()
	for !l.removed {
		ok, err := l.stream.Next(&l.loop.reply)
		if !ok || err != nil {
			return err
		}
		h.Reply(l, &l.loop.reply, now)
	}
	return nil
}
