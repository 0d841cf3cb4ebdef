// Package udp has the sockets of measurements that exchange many small datagrams: over
// IPv4, not blocking, for one goroutine that waits for all of them at once. A goroutine
// for each would cost a failed read and two switches for each datagram.
package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxDatagram is more than any datagram over IPv4 holds, in bytes.
const MaxDatagram = 1 << 16

// ErrNothing is what Receive and ReceiveFrom return where nothing has arrived, and Send and
// SendTo where there is no room to send.
var ErrNothing = errors.New("no datagram has arrived")

// Socket is a UDP socket. It may send while another goroutine receives; else it is for
// one at a time.
type Socket struct{ fd int }

// Listen makes a socket at a local address; port 0 is any that is free. What is not an
// IPv4 address is an error.
func Listen(local netip.AddrPort) (*Socket, error) {
	if !local.Addr().Is4() {
		return nil, fmt.Errorf("%v is not an IPv4 address", local)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.Addr().As4(), Port: int(local.Port())}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind %v: %w", local, err)
	}
	return &Socket{fd}, nil
}

// Close closes the socket, which leaves the Polls that it was added to.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Local returns the address that the socket is bound to.
func (s *Socket) Local() (netip.AddrPort, error) {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	in4, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, errors.New("the socket has no IPv4 address")
	}
	return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)), nil
}

// Connect makes the socket send to an address, and receive what comes from there alone.
// What has arrived from others before is still received.
func (s *Socket) Connect(to netip.AddrPort) error {
	err := unix.Connect(s.fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	return os.NewSyscallError("connect", err)
}

// System calls on these sockets do not wait. So they go past the runtime's bookkeeping
// for those that might, as those of the servers do that are measured.

// Send sends to where the socket is connected to.
func (s *Socket) Send(p []byte) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return failure(errno)
}

// SendTo sends to an IPv4 address.
func (s *Socket) SendTo(p []byte, to netip.AddrPort) error {
	sa := rawAddress(to)
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	return failure(errno)
}

// Receive takes the next datagram, of which what does not fit into p is lost.
func (s *Socket) Receive(p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	if errno != 0 {
		return 0, failure(errno)
	}
	return int(n), nil
}

// ReceiveFrom is Receive, and says who has sent it.
func (s *Socket) ReceiveFrom(p []byte) (int, netip.AddrPort, error) {
	var sa unix.RawSockaddrInet4
	size := uint32(unsafe.Sizeof(sa))
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0,
		uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, netip.AddrPort{}, failure(errno)
	}
	return int(n), netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), swap(sa.Port)), nil
}

func failure(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN, unix.EINTR:
		return ErrNothing
	}
	return errno
}

func rawAddress(a netip.AddrPort) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4(), Port: swap(a.Port())}
}

// swap turns a port of the host into one of the network, and back.
func swap(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// Poll waits for many sockets at once, each of which has a key. It is for one goroutine.
type Poll struct {
	epoll  int
	events [128]unix.EpollEvent
	ready  []int32
}

// NewPoll returns a Poll without sockets.
func NewPoll() (*Poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &Poll{epoll: fd}, nil
}

// Close leaves the sockets open.
func (p *Poll) Close() error { return unix.Close(p.epoll) }

// Add makes the Poll wait for a socket, too.
func (p *Poll) Add(s *Socket, key int32) error {
	err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: key})
	return os.NewSyscallError("epoll_ctl", err)
}

// Wait returns the keys of sockets that have something to be received, or an error to
// tell of. It waits for at least one, at most for a time, which it rounds up to
// milliseconds. The keys are valid until the next call.
func (p *Poll) Wait(most time.Duration) ([]int32, error) {
	n, err := unix.EpollWait(p.epoll, p.events[:], int((most + time.Millisecond - 1).Milliseconds()))
	if err != nil && err != unix.EINTR {
		return nil, os.NewSyscallError("epoll_wait", err)
	}
	p.ready = p.ready[:0]
	for _, e := range p.events[:max(n, 0)] {
		p.ready = append(p.ready, e.Fd)
	}
	return p.ready, nil
}
