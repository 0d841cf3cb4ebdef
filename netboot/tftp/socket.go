package tftp

import (
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockets do not block, so what is done for each block goes past the runtime's
// bookkeeping for system calls that might (RawSyscall), as in nfs/socket.go.

// receive is read(2).
func receive(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

// send is send(2) of one packet.
func send(fd int, p []byte) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
	return errno
}

// sendMessage is sendmsg(2).
func sendMessage(fd int, m *unix.Msghdr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), 0)
	return errno
}

// duplicate returns a descriptor of its own for pc's socket, which does not
// block, and the socket's family.
func duplicate(pc *net.UDPConn) (fd, family int, err error) {
	raw, err := pc.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var dupErr error
	if err := raw.Control(func(of uintptr) {
		fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, 0, err
	}
	if dupErr != nil {
		return -1, 0, dupErr
	}
	family, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, family, nil
}

// wantDestination makes the kernel tell where a datagram was sent to: a host
// with several addresses must answer from that one.
func wantDestination(fd, family int) error {
	if family == unix.AF_INET6 { // fails on a socket of IPv6 alone, which needs no such thing
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// path is where a datagram came from and where it was sent to.
type path struct {
	from  netip.AddrPort
	local netip.Addr
	// device is the network device that link-local addresses belong to, by its number.
	device uint32
}

// parsePath reads the path of a datagram. A request that was broadcast, or that
// nobody can have sent, has none: it is to be ignored (RFC 1123, section 4.2.3.4).
func parsePath(from unix.Sockaddr, control []byte) (path, bool) {
	var p path
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		p.from = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		p.device = a.ZoneId
		p.from = netip.AddrPortFrom(p.inZone(netip.AddrFrom16(a.Addr).Unmap()), uint16(a.Port))
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return p, false
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst is ours in any case, ipi_addr what the sender wrote. The
			// first is missing if the datagram came before wantDestination.
			ours, written := netip.AddrFrom4([4]byte(m.Data[4:8])), netip.AddrFrom4([4]byte(m.Data[8:12]))
			if ours != written && !ours.IsUnspecified() {
				return p, false
			}
			p.local = written
			return p, p.sensible()
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			p.local = p.inZone(netip.AddrFrom16([16]byte(m.Data[:16])).Unmap())
		}
	}
	return p, p.sensible()
}

// inZone is a with its network device if it means nothing without.
func (p *path) inZone(a netip.Addr) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() && p.device != 0 {
		return a.WithZone(strconv.Itoa(int(p.device)))
	}
	return a
}

var everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (p *path) sensible() bool {
	from := p.from.Addr()
	return p.from.Port() != 0 && from.IsValid() && !from.IsUnspecified() && !from.IsMulticast() &&
		from.Is4() == p.local.Is4() && !p.local.IsUnspecified() && !p.local.IsMulticast() && p.local != everybody
}

func (p *path) sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	to := &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
	if a.Zone() != "" {
		to.ZoneId = p.device
	}
	return to
}

// ackBuffer is how many bytes a socket of a transfer may hold that were not read
// yet: some twenty ACKs, so that floods of them cost no memory.
const ackBuffer = 8 << 10

// connect opens a socket for a transfer: its port is chosen by the kernel, and
// it hears nothing but what comes from the client's port (RFC 1350, section 4).
func (p *path) connect() (int, error) {
	family := unix.AF_INET
	if p.local.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, p.sockaddr(p.local, 0))
	if err == nil {
		err = unix.Connect(fd, p.sockaddr(p.from.Addr(), p.from.Port()))
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, ackBuffer)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// largestBlock is how large a block can be without its packet being cut to
// pieces, which boot loaders do not put together again.
func (p *path) largestBlock(fd int) int {
	level, name, headers := unix.IPPROTO_IP, unix.IP_MTU, 20+8
	if p.local.Is6() {
		level, name, headers = unix.IPPROTO_IPV6, unix.IPV6_MTU, 40+8
	}
	mtu, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return defaultBlock
	}
	return max(mtu-headers-headerSize, minBlock)
}

// allowPieces lets routers, or with IPv6 the kernel, cut packets from fd to pieces.
func (p *path) allowPieces(fd int) {
	if p.local.Is6() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
}

// answer sends a packet that belongs to no transfer from fd, which is not
// connected, as the address that the request was sent to. It may be lost.
func (p *path) answer(fd, family int, packet []byte) {
	from, local := p.from.Addr(), p.local
	var control []byte
	var to unix.Sockaddr
	switch {
	case local.Is4() && family == unix.AF_INET6:
		control = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
		to = &unix.SockaddrInet6{Addr: from.As16(), Port: int(p.from.Port())}
	case local.Is4():
		control = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
		to = p.sockaddr(from, p.from.Port())
	default:
		control = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16(), Ifindex: p.device})
		to = p.sockaddr(from, p.from.Port())
	}
	_ = unix.Sendmsg(fd, packet, control, to, 0)
}
