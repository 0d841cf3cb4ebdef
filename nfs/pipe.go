package nfs

import (
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/capability"
)

// The data of large READs and WRITEs goes through pipes: of WRITE see piped.go.
//
// A large READ of a home goes from the page cache to the socket through a pipe, by
// splice(2): its bytes are never copied, and how many there are is known before the
// reply begins, which sendfile(2) would not tell of a file that may change. With one READ
// of 1 MiB at a time it took 145 us of CPU copied, and takes 95 so; with 4 connections x
// 16 in flight 240 and 99 (bench homes).

// pipe has room for the largest READ from a page's beginning on.
type pipe struct {
	in, out int // where it is written to, and read from
	held    int // bytes that are in it
}

const (
	// maxPipes is how many pipes there may be. Each has two descriptors, and each place of
	// one can keep a page from being used again, however few bytes of it are meant.
	maxPipes = 48
	// sparePipes is how many are kept for the next calls.
	sparePipes = 16
	// pipePlaces is how many segments of Ethernet a pipe has to hold for the largest WRITE,
	// as each takes a place. What is more than maxIO, with a page for each, only root may have.
	pipePlaces = 1024
)

// pageSize is how much there is room for in a place of a pipe.
var pageSize = os.Getpagesize()

// pipes are those that nobody uses.
type pipes struct {
	spare chan *pipe
	made  atomic.Int32
}

// get returns an empty pipe, or nil if there can be none, as with too many open files.
func (p *pipes) get() *pipe {
	select {
	case spare := <-p.spare:
		return spare
	default:
	}
	if p.made.Add(1) <= maxPipes {
		if made := makePipe(); made != nil {
			return made
		}
	}
	p.made.Add(-1)
	return nil
}

func makePipe() *pipe {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	made := &pipe{in: fd[1], out: fd[0]}
	large := false
	capability.Acting(unix.CAP_SYS_RESOURCE, func() { large = made.resize(pipePlaces * pageSize) })
	if large || made.resize(maxIO) {
		return made
	}
	unix.Close(fd[0])
	unix.Close(fd[1])
	return nil // a user who is not root may have so much in pipes
}

func (p *pipe) resize(size int) bool {
	n, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, size)
	return err == nil && n >= size
}

// put takes a pipe back.
func (p *pipes) put(used *pipe) {
	if used.held == 0 {
		select {
		case p.spare <- used:
			return
		default:
		}
	}
	p.drop(used)
}

// drop is put of a pipe that nobody knows what is in.
func (p *pipes) drop(used *pipe) {
	unix.Close(used.in)
	unix.Close(used.out)
	p.made.Add(-1)
}

// readAll reads what is in a pipe. An error cannot be but for a fault of the host.
func (p *pipe) readAll(b []byte) error {
	for p.held > 0 {
		n, err := unix.Read(p.out, b[:p.held])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
		p.held -= n
	}
	return nil
}

// pipeHolds reports whether a READ is large enough for a pipe, and fits into one, whose
// places hold a page each.
func pipeHolds(off uint64, count uint32) bool {
	return count > copyLimit && off%uint64(pageSize)+uint64(min(count, maxIO)) <= maxIO
}
