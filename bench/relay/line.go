package relay

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// chunkSize is how much is forwarded in one piece: the reply to a READ of 128 KiB.
const chunkSize = 132 << 10

// chunk is bytes under way, or with none of them the end of a stream.
type chunk struct {
	due  time.Time
	to   *pipe
	buf  *[chunkSize]byte // nil at the end of a stream
	data []byte           // of buf
}

var buffers = sync.Pool{New: func() any { return new([chunkSize]byte) }}

func (c *chunk) free() {
	if c.buf != nil {
		buffers.Put(c.buf)
	}
}

// line holds back chunks, all for the same time: so they leave in the order in which
// they came, and one timer is enough for all connections.
//
// A timer of the Go runtime ends on whole milliseconds where nothing else goes on,
// because epoll_wait counts in them. That of timerfd_create(2) does not.
type line struct {
	delay time.Duration
	fd    int      // of timer, whose own Fd method would make it block a thread
	timer *os.File // readable when the time has come

	mu     sync.Mutex // guards queue
	queue  []chunk
	arrive sync.Cond // signalled when the queue is no longer empty
}

func newLine(delay time.Duration) (*line, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	l := &line{delay: delay, fd: fd, timer: os.NewFile(uintptr(fd), "timer")}
	l.arrive.L = &l.mu
	return l, nil
}

// put begins to hold back a chunk.
func (l *line) put(c chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.due = time.Now().Add(l.delay) // under the lock, so that the queue is in order
	l.queue = append(l.queue, c)
	if len(l.queue) == 1 {
		l.arrive.Signal()
	}
}

// run delivers chunks when they are due.
func (l *line) run() {
	var batch []chunk
	for {
		batch = l.take(batch[:0])
		for i := range batch {
			l.sleepUntil(batch[i].due)
			batch[i].to.deliver(batch[i])
			batch[i] = chunk{}
		}
	}
}

// take waits until there are chunks and returns all of them, using the memory of
// batch for those that come next.
func (l *line) take(batch []chunk) []chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		l.arrive.Wait()
	}
	queue := l.queue
	l.queue = batch
	return queue
}

func (l *line) sleepUntil(t time.Time) {
	left := time.Until(t)
	if left <= 0 {
		return
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(left.Nanoseconds())}
	if unix.TimerfdSettime(l.fd, 0, &spec, nil) != nil {
		return
	}
	var expirations [8]byte
	l.timer.Read(expirations[:])
}
