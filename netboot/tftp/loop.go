package tftp

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// loop serves one socket. All of it belongs to the goroutine in run, but for
// what others leave in its mailbox.
type loop struct {
	srv    *Server
	aside  *aside // nil until run
	ctx    context.Context
	limits limits

	epoll    int
	listener int // the socket that requests come to
	family   int // of the listener
	refusals int // the socket that errors go out by which belong to no transfer
	mail     mailbox
	workers  sync.WaitGroup // goroutines in Open and in reads
	disk     chan struct{}  // a token for each read of a disk that goes on

	now      time.Time // when the loop woke
	yielded  time.Time // when the scheduler last saw it
	nextTick time.Time

	clients map[netip.AddrPort]*transfer
	at      map[netip.Addr]int // how many of clients have an address
	silent  list.List          // of *transfer that has a file, the one that is silent longest first
	slots   []*transfer        // those that have a socket, by the number that its events carry
	free    []int32            // slots without a transfer
	serial  int32              // of the last transfer that got a slot
	half    list.List          // of *transfer of which nothing is acknowledged, the oldest first
	waiting list.List          // those of half for which Open has not been called
	opening int                // goroutines in Open
	lost    int                // transfers that are over while a read of theirs goes on

	events  [128]unix.EpollEvent
	in      [2 * maxRequest]byte // longer than a request may be, to tell those that are too long
	control [128]byte
	out     []byte
	warned  map[string]*warnings // by message
	batch   batch
	gso     bool // the kernel knows UDP_SEGMENT (Linux 4.18)
}

// Events that belong to no transfer carry these in place of a slot.
const (
	eventMail    = -1
	eventRequest = -2
)

// requestsAtOnce is how many requests are taken before transfers get their turn.
const requestsAtOnce = 32

func newLoop(ctx context.Context, s *Server, pc *net.UDPConn, limits limits) (l *loop, err error) {
	l = &loop{
		srv: s, ctx: ctx, limits: limits,
		epoll: -1, listener: -1, refusals: -1, mail: mailbox{event: -1},
		disk:    make(chan struct{}, limits.reads),
		clients: make(map[netip.AddrPort]*transfer),
		at:      make(map[netip.Addr]int),
		warned:  make(map[string]*warnings),
		now:     time.Now(),
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.listener, l.family, err = duplicate(pc); err != nil {
		return nil, err
	}
	if err := wantDestination(l.listener, l.family); err != nil {
		return nil, fmt.Errorf("tftp: cannot learn where requests are sent to: %w", err)
	}
	if l.refusals, err = unix.Socket(l.family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("tftp: cannot open a socket: %w", err)
	}
	if l.family == unix.AF_INET6 { // it answers IPv4 clients, too, whatever net.ipv6.bindv6only says
		if err := unix.SetsockoptInt(l.refusals, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return nil, fmt.Errorf("tftp: cannot set up a socket for IPv4: %w", err)
		}
	}
	l.gso = unix.SetsockoptInt(l.refusals, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0) == nil
	if l.mail.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("tftp: cannot make an eventfd: %w", err)
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("tftp: cannot make an epoll: %w", err)
	}
	if err := l.watch(l.mail.event, eventMail, 0); err != nil {
		return nil, err
	}
	if err := l.watch(l.listener, eventRequest, 0); err != nil {
		return nil, err
	}
	l.batch.init()
	return l, nil
}

func (l *loop) watch(fd int, slot, serial int32) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: slot, Pad: serial}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("tftp: cannot wait for a socket: %w", err)
	}
	return nil
}

func (l *loop) close() {
	for _, fd := range []int{l.epoll, l.listener, l.refusals} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	l.mail.close()
}

// yieldEvery is how often the scheduler sees the loop while packets come. A
// goroutine that it has not seen for 10 ms (forcePreemptNS, runtime/proc.go of
// Go 1.26) loses its processor at every look of sysmon while it waits for a
// packet, and each packet then wakes two threads more: for one node that is 1 ms
// away, 46 ms of CPU for each MiB instead of 35.
const yieldEvery = 7 * time.Millisecond

// run serves until ctx ends or the socket fails.
func (l *loop) run() error {
	debug.SetPanicOnFault(true) // a file may be mapped, and then be cut
	for {
		n, err := unix.EpollWait(l.epoll, l.events[:], l.untilTick())
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("tftp: cannot wait for packets: %w", err)
		}
		l.now = time.Now()
		if l.now.Sub(l.yielded) > yieldEvery {
			runtime.Gosched()
			l.yielded = l.now
		}
		requests, ends := false, false
		for _, e := range l.events[:max(n, 0)] {
			switch e.Fd {
			case eventMail:
				if ends = l.ctx.Err() != nil; !ends {
					l.readMail()
				}
			case eventRequest:
				requests = true
			default:
				// The transfer may have ended by what came before in this round.
				if t := l.slots[e.Fd]; t != nil && t.serial == e.Pad {
					l.receive(t)
				}
			}
		}
		if ends { // but not before what had come is dealt with: who has confirmed is known
			return nil
		}
		if requests {
			if err := l.receiveRequests(); err != nil {
				return err
			}
		}
		if !l.now.Before(l.nextTick) {
			l.tick()
		}
	}
}

// tickEvery is how exact timeouts are. Each of them restarts with each packet,
// so it is cheaper to look at all transfers now and then than to keep an order.
func (l *loop) tickEvery() time.Duration { return min(l.limits.timeout/10, 100*time.Millisecond) }

// untilTick is how long to wait, in milliseconds: forever without transfers.
func (l *loop) untilTick() int {
	if len(l.slots) == len(l.free) {
		return -1
	}
	return int(max(0, l.nextTick.Sub(l.now))/time.Millisecond) + 1
}

func (l *loop) tick() {
	l.nextTick = l.now.Add(l.tickEvery())
	for _, t := range l.slots {
		if t != nil && !l.now.Before(t.deadline) {
			l.expired(t)
		}
	}
}

// receiveRequests takes requests that have arrived.
func (l *loop) receiveRequests() error {
	for range requestsAtOnce {
		n, nc, _, from, err := unix.Recvmsg(l.listener, l.in[:], l.control[:], 0)
		switch err {
		case nil:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return nil // if there is more, it is heard of again
		case unix.EINTR:
			continue
		default:
			return fmt.Errorf("tftp: cannot receive requests: %w", err)
		}
		if p, ok := parsePath(from, l.control[:nc]); ok {
			l.request(l.in[:n], p)
		}
	}
	return nil
}

// request begins a transfer, as far as that goes without waiting.
func (l *loop) request(packet []byte, p path) {
	q, refusal := parseRequest(packet)
	if q == nil {
		if refusal != nil {
			l.refuse(p, refusal)
		}
		return
	}
	if old := l.clients[p.from]; old != nil && !l.superseded(old, q) {
		return
	}
	if !l.room(p.from.Addr()) {
		l.srv.stats.refused.Add(1)
		l.warn("too many transfers", zap.Stringer("client", p.from))
		return
	}
	t := &transfer{path: p, query: q, began: l.now, fd: -1}
	l.clients[p.from] = t
	l.at[p.from.Addr()]++
	t.half = l.half.PushBack(t)
	t.waiting = l.waiting.PushBack(t)
	l.openNext()
}

// room reports whether one more transfer from an address may begin. Another one
// may have to end for it.
func (l *loop) room(from netip.Addr) bool {
	if l.half.Len() >= l.limits.halfOpen {
		l.end(l.half.Front().Value.(*transfer), errPushedOut)
	}
	if l.at[from] >= l.limits.perAddress && !l.pushOut(from) {
		return false
	}
	return len(l.clients)+l.lost < l.limits.transfers || l.pushOut(netip.Addr{})
}

// pushOut ends the transfer of which nothing is heard for longest, and reports
// whether there is one that is silent for a timeout. It may have to be one with a
// client at some address. What waits for our own disk is not silent.
func (l *loop) pushOut(from netip.Addr) bool {
	for e := l.silent.Front(); e != nil; e = e.Next() {
		t := e.Value.(*transfer)
		if l.now.Sub(t.heard) < l.limits.timeout {
			return false
		}
		if !t.reading && (!from.IsValid() || t.path.from.Addr() == from) {
			l.end(t, errPushedOut)
			return true
		}
	}
	return false
}

// superseded reports whether a request comes in place of an earlier one of the
// same port, which then ends. The same request again is one that the network
// has doubled or that the client has repeated before our answer arrived, unless
// the client was silent long enough to have started again.
func (l *loop) superseded(old *transfer, q *query) bool {
	for range requestsAtOnce {
		if old.over || old.fd < 0 || !l.receive(old) { // it may have ended the other one before
			break
		}
	}
	if old.over {
		return true
	}
	silent := old.half == nil && !old.reading && l.now.Sub(old.heard) >= l.limits.timeout
	if old.query.equal(q) && !silent {
		return false
	}
	l.end(old, fmt.Errorf("%w: it began again", ErrAborted))
	return true
}

// openNext calls Open for those that wait for it, as far as it may be called.
func (l *loop) openNext() {
	for l.opening < l.limits.opens && l.waiting.Len() > 0 {
		t := l.waiting.Remove(l.waiting.Front()).(*transfer)
		t.waiting = nil
		l.opening++
		l.workers.Add(1)
		go func() {
			defer l.workers.Done()
			f, err := l.open(t)
			l.mail.post(letter{t: t, opened: true, file: f, err: err})
		}()
	}
}

// open calls Open. A panic is an error of the request that it came of.
func (l *loop) open(t *transfer) (f File, err error) {
	debug.SetPanicOnFault(true)
	defer l.recover(t, &err)
	f, err = l.srv.Open(l.ctx, t.request())
	switch {
	case err != nil:
		return nil, err
	case f == nil:
		return nil, errors.New("tftp: Open has returned neither a file nor an error")
	case t.query.netascii:
		return translate(f)
	}
	return f, nil
}

var errPanic = errors.New("tftp: internal error")

// recover makes an error of a panic.
func (l *loop) recover(t *transfer, err *error) {
	if r := recover(); r != nil {
		l.say(zap.ErrorLevel, "panic in a transfer", zap.Any("panic", r), zap.Stringer("client", t.path.from),
			zap.String("name", t.query.name), zap.ByteString("stack", debug.Stack()))
		*err = errPanic
	}
}

// say has a line logged.
func (l *loop) say(level zapcore.Level, message string, fields ...zap.Field) {
	if e := l.srv.Log.Check(level, message); e != nil {
		l.aside.do(func() { e.Write(fields...) })
	}
}

// warnings counts how often the same was said lately.
type warnings struct {
	began time.Time
	n     int
}

// warningsAMinute is how often a minute the log says the same of what clients
// can bring about at any rate.
const warningsAMinute = 10

// warn has a warning logged, unless the same was said often enough.
func (l *loop) warn(message string, fields ...zap.Field) {
	w := l.warned[message]
	if w == nil {
		w = &warnings{began: l.now}
		l.warned[message] = w
	}
	if l.now.Sub(w.began) >= time.Minute {
		*w = warnings{began: l.now}
	}
	if w.n++; w.n <= warningsAMinute {
		l.say(zap.WarnLevel, message, fields...)
	}
}

// refuse answers a request by an error.
func (l *loop) refuse(p path, e *Error) {
	l.srv.stats.refused.Add(1)
	l.out = appendError(l.out[:0], e)
	p.answer(l.refusals, l.family, l.out)
}

// refuseTransfer ends a transfer for which there is no file.
func (l *loop) refuseTransfer(t *transfer, err error) {
	var told *Error
	switch {
	case errors.Is(err, ErrIgnore):
		l.srv.stats.refused.Add(1)
	case errors.As(err, &told):
		l.refuse(t.path, told)
	default:
		l.warn("cannot open a file", zap.Stringer("client", t.path.from), zap.String("name", t.query.name), zap.Error(err))
		l.refuse(t.path, errUnreadable)
	}
	l.forget(t)
}

// letter is what a goroutine that waited for something leaves for the loop.
type letter struct {
	t      *transfer
	opened bool // by Open; a read otherwise
	file   File
	n      int
	err    error
}

// readMail goes on with what others have waited for.
func (l *loop) readMail() {
	for _, m := range l.mail.take() {
		switch {
		case !m.opened:
			l.haveRead(m.t, m.n, m.err)
			continue
		case m.t.over:
			if m.err == nil {
				m.file.Close()
			}
		case m.err != nil:
			l.refuseTransfer(m.t, m.err)
		default:
			l.start(m.t, m.file)
		}
		l.opening--
	}
	l.openNext()
}

// drain ends all transfers. It returns when nobody uses a file any more.
func (l *loop) drain() {
	for _, t := range l.clients {
		l.end(t, errStopped)
	}
	l.workers.Wait()
	l.readMail()
}

// mailbox is where other goroutines leave letters; the event wakes the loop.
type mailbox struct {
	mu      sync.Mutex // guards what follows
	event   int        // an eventfd, or -1
	letters []letter
	spare   []letter // of the loop alone
}

func (m *mailbox) post(one letter) {
	m.mu.Lock()
	m.letters = append(m.letters, one)
	m.mu.Unlock()
	m.wake()
}

func (m *mailbox) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.event >= 0 {
		_, _ = unix.Write(m.event, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

// take returns the letters. They are good until the next call.
func (m *mailbox) take() []letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	var count [8]byte
	_, _ = unix.Read(m.event, count[:])
	clear(m.spare)
	m.letters, m.spare = m.spare[:0], m.letters
	return m.spare
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.event >= 0 {
		unix.Close(m.event)
		m.event = -1
	}
}
