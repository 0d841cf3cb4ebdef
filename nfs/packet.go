package nfs

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	gonfs "github.com/willscott/go-nfs"
)

// maxDatagram is the largest call that is taken from a datagram. MNT with the
// longest path and credentials fits.
const maxDatagram = 16 << 10

// ServePacket answers MOUNT and port mapper calls that come in datagrams to pc,
// which must be UDP, until ctx ends; then it closes pc and returns nil. It
// returns early only if pc fails.
func (s *Server) ServePacket(ctx context.Context, pc net.PacketConn) error {
	defer pc.Close()
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return errors.New("nfs: not a UDP socket")
	}
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	if err := wantDestination(udp); err != nil {
		return err
	}
	return s.answerPackets(ctx, udp)
}

func (s *Server) answerPackets(ctx context.Context, udp *net.UDPConn) error {
	buf := make([]byte, maxDatagram)
	control := make([]byte, 256)
	port := addrPort(udp.LocalAddr()).Port()
	var pause backoff
	for {
		n, nc, flags, from, err := udp.ReadMsgUDPAddrPort(buf, control)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			s.log.Warn("cannot receive datagrams", zap.Error(err))
			pause.wait(ctx)
			continue
		case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
			continue // too long for any call
		}
		pause.reset()
		to, source := destination(control[:nc])
		s.answerPacket(udp, buf[:n], source, netip.AddrPortFrom(to, port), from)
	}
}

// answerPacket answers one datagram. A reply that cannot be sent is lost, which
// is in the nature of datagrams.
func (s *Server) answerPacket(udp *net.UDPConn, msg, source []byte, to, from netip.AddrPort) {
	remote := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	c := s.newCall(s.exports.Peer(remote), to, remote)
	arrived, shard := s.stats.clock(), s.stats.shard()
	shard.received.Add(uint64(len(msg)))
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r, c)
			return
		}
		s.freeCall(c)
	}()
	c.datagram = true
	if c.answer(msg) != replied || c.floods() {
		return
	}
	if _, _, err := udp.WriteMsgUDPAddrPort(c.out.Bytes(), source, from); err != nil {
		s.log.Debug("cannot reply to a datagram", zap.Stringer("client", remote), zap.Error(err))
		return
	}
	shard.sent.Add(uint64(c.out.Len()))
	shard.count(c.kind, 1, s.stats.clock()-arrived)
}

// floods reports whether a reply should not be sent because it is a list, which
// is larger than its call. The sender of a datagram can be forged, and a reply
// then hits a victim: so lists go to those only who may mount, and not too many.
func (c *call) floods() bool {
	h := &c.header
	list := h.Prog == progPortmap && h.Proc == 4 ||
		h.Prog == progMount && (h.Proc == uint32(gonfs.MountProcDump) || h.Proc == uint32(gonfs.MountProcExport))
	return list && !(c.peer.Allowed() && c.srv.lists.allow(time.Now()))
}

// maxListsPerSecond is more than people who run showmount and rpcinfo ever need.
const maxListsPerSecond = 100

// listRate counts the lists that were sent in datagrams in one second.
type listRate struct {
	second atomic.Int64
	count  atomic.Int64
}

// allow reports whether one more may be sent. That a few too many are allowed
// when seconds change does no harm.
func (r *listRate) allow(now time.Time) bool {
	if second := now.Unix(); r.second.Swap(second) != second {
		r.count.Store(0)
	}
	return r.count.Add(1) <= maxListsPerSecond
}

// wantDestination makes the kernel tell the address that a datagram was sent
// to. A host with several must reply from that one, or the caller takes the
// reply for somebody else's.
func wantDestination(udp *net.UDPConn) error {
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	var err4, err6 error
	err = raw.Control(func(fd uintptr) {
		err4 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		err6 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	if err != nil {
		return err
	}
	if err4 != nil && err6 != nil {
		return err4
	}
	return nil
}

// destination finds, in the control messages of a datagram, where it was sent
// to, and returns the control message that makes a reply come from there.
func destination(control []byte) (netip.Addr, []byte) {
	msgs, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, nil
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			local := [4]byte(m.Data[4:8]) // ipi_spec_dst: ours, even if the datagram was broadcast
			return netip.AddrFrom4(local), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local})
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			local := [16]byte(m.Data[:16]) // ipi6_addr
			return netip.AddrFrom16(local).Unmap(), unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local})
		}
	}
	return netip.Addr{}, nil
}
