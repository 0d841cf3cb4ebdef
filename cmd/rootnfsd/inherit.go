package main

import (
	"net"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"go.uber.org/zap"
)

// inherited are sockets that systemd opened and keeps (sd_listen_fds(3)). They
// outlive a crash: a client that reconnects while the server is away waits for
// it in the queue, where otherwise it is refused and lets three seconds pass
// (call_connect_status in net/sunrpc/clnt.c).
type inherited map[string]any // net.Listener or net.PacketConn, by network and port

// inherit takes over the sockets that this process was started with.
func inherit() inherited {
	in := inherited{}
	for _, f := range activation.Files(true) {
		in.add(f)
		f.Close() // what was made of it is a duplicate
	}
	return in
}

func (in inherited) add(f *os.File) {
	if ln, err := net.FileListener(f); err == nil {
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			in["tcp "+strconv.Itoa(a.Port)] = ln
		}
		return
	}
	if pc, err := net.FilePacketConn(f); err == nil {
		if a, ok := pc.LocalAddr().(*net.UDPAddr); ok {
			in["udp "+strconv.Itoa(a.Port)] = pc
		}
	}
}

// listener returns the socket for TCP at a port and no longer knows it, or nil.
func (in inherited) listener(port string) net.Listener {
	ln, _ := in["tcp "+port].(net.Listener)
	delete(in, "tcp "+port)
	return ln
}

// packetConn is listener for UDP.
func (in inherited) packetConn(port string) net.PacketConn {
	pc, _ := in["udp "+port].(net.PacketConn)
	delete(in, "udp "+port)
	return pc
}

func (in inherited) warnUnused(log *zap.Logger) {
	for which := range in {
		log.Warn("systemd passed a socket that nothing is served on: compare the .socket unit with --listen, --portmap and --tftp", zap.String("socket", which))
	}
}
