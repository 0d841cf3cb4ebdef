package tftp

import (
	"cmp"
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Serve answers what comes to pc, which must be a *net.UDPConn, until ctx ends;
// then it ends all transfers, closes pc and returns nil, once every call of Open
// and ReadAt has returned. For Confirmed, Done and the log it waits a second at
// most. It returns early only if pc fails. A server may serve several sockets at
// once; limits hold for each.
func (s *Server) Serve(ctx context.Context, pc net.PacketConn) error {
	defer pc.Close()
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return errors.New("tftp: not a UDP socket")
	}
	limits := s.limits
	limits.setDefaults()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := newLoop(ctx, s, udp, limits)
	if err != nil {
		return err
	}
	defer l.close()
	l.aside = newAside(s.Log, limits.aside)
	defer l.aside.finish()
	defer context.AfterFunc(ctx, l.mail.wake)()
	err = l.run()
	cancel()
	l.drain()
	return err
}

func (l *limits) setDefaults() {
	l.transfers = cmp.Or(l.transfers, maxTransfers())
	l.halfOpen = cmp.Or(l.halfOpen, max(1, l.transfers/2))
	l.perAddress = cmp.Or(l.perAddress, 64)
	l.opens = cmp.Or(l.opens, 64)
	l.reads = cmp.Or(l.reads, 64)
	l.aside = cmp.Or(l.aside, 4096)
	l.timeout = cmp.Or(l.timeout, time.Second)
	l.silence = cmp.Or(l.silence, time.Minute)
}

// maxTransfers leaves most descriptors to others: a transfer has a socket, and
// NFS a connection for each node.
func maxTransfers() int {
	const most, share = 2048, 8
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur >= most*share {
		return most
	}
	return max(16, int(r.Cur)/share)
}
