package relay

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// parcel is what a line holds back.
type parcel interface {
	// deliver passes it on, without waiting for a receiver.
	deliver()
}

// held is a parcel under way.
type held[P parcel] struct {
	due    time.Time
	parcel P
}

// line holds back parcels, all for the same time: so they leave in the order in which
// they came, and one timer is enough for all connections.
//
// A timer of the Go runtime ends on whole milliseconds where nothing else goes on,
// because epoll_wait counts in them. That of timerfd_create(2) does not.
type line[P parcel] struct {
	delay time.Duration
	fd    int      // of timer, whose own Fd method would make it block a thread
	timer *os.File // readable when the time has come

	mu     sync.Mutex // guards queue
	queue  []held[P]
	arrive sync.Cond // signalled when the queue is no longer empty
}

// newLine returns a line that runs until the process ends.
func newLine[P parcel](delay time.Duration) (*line[P], error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	l := &line[P]{delay: delay, fd: fd, timer: os.NewFile(uintptr(fd), "timer")}
	l.arrive.L = &l.mu
	go l.run()
	return l, nil
}

// put begins to hold back a parcel.
func (l *line[P]) put(p P) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The time is taken under the lock, so that the queue is in order.
	l.queue = append(l.queue, held[P]{time.Now().Add(l.delay), p})
	if len(l.queue) == 1 {
		l.arrive.Signal()
	}
}

// run delivers parcels when they are due.
func (l *line[P]) run() {
	var batch []held[P]
	for {
		batch = l.take(batch[:0])
		for i := range batch {
			l.sleepUntil(batch[i].due)
			batch[i].parcel.deliver()
			batch[i] = held[P]{}
		}
	}
}

// take waits until there are parcels and returns all of them, using the memory of
// batch for those that come next.
func (l *line[P]) take(batch []held[P]) []held[P] {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		l.arrive.Wait()
	}
	queue := l.queue
	l.queue = batch
	return queue
}

func (l *line[P]) sleepUntil(t time.Time) {
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
