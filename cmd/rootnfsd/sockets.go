package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/netboot"
	"github.com/rootnfsd/rootnfsd/nfs"
)

// sockets are what the server listens on. Every one of them answers all
// programs; NFS itself only over TCP.
type sockets struct {
	tcp []net.Listener
	udp []net.PacketConn
	// admin is where operators ask over TCP; nil if they cannot.
	admin net.Listener
	// tftp is where nodes get their boot files; nil if they do not.
	tftp net.PacketConn

	inherited inherited

	nfs     int // port
	portmap int // port, 0 if the port mapper is off or somebody else's
	// unregister takes back what was registered with somebody else's; nil if
	// nothing was.
	unregister func(context.Context) error
}

// klibcMountPort is where klibc's nfsmount looks for MOUNT when the port mapper
// does not know it (usr/kinit/nfsmount/mount.c).
const klibcMountPort = 627

func openSockets(ctx context.Context, listen, portmap, tftp string, log *zap.Logger) (_ *sockets, err error) {
	s := &sockets{inherited: inherit()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.nfs, err = s.open(listen, "--listen"); err != nil {
		return nil, err
	}
	defer s.inherited.warnUnused(log)
	if err := s.openTFTP(tftp); err != nil {
		return nil, err
	}
	if portmap == "off" {
		return s, nil
	}
	before := *s
	s.portmap, err = s.open(portmap, "--portmap")
	if errors.Is(err, syscall.EADDRINUSE) && strings.HasSuffix(portmap, ":111") {
		if len(s.tcp) > len(before.tcp) { // it was UDP that is taken: leave TCP too, half a port mapper is none
			s.tcp[len(s.tcp)-1].Close()
			s.tcp = before.tcp
		}
		return s, s.useForeign(ctx, listen, err, log)
	}
	return s, err
}

// open listens on an address over TCP and UDP and returns the port.
func (s *sockets) open(addr, flag string) (int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, fmt.Errorf("%s %s: want HOST:PORT or :PORT", flag, addr)
	}
	ln := s.inherited.listener(port)
	if ln == nil {
		if ln, err = net.Listen("tcp", addr); err != nil {
			return 0, explain(err, "tcp", flag, port)
		}
	}
	s.tcp = append(s.tcp, ln)
	// With port 0 the kernel has chosen one for TCP; UDP must be the same.
	n := ln.Addr().(*net.TCPAddr).Port
	pc := s.inherited.packetConn(port)
	if pc == nil {
		if pc, err = net.ListenPacket("udp", net.JoinHostPort(host, strconv.Itoa(n))); err != nil {
			return 0, explain(err, "udp", flag, port)
		}
	}
	s.udp = append(s.udp, pc)
	return n, nil
}

// openTFTP listens for requests of boot files, unless the address is off.
func (s *sockets) openTFTP(addr string) error {
	if addr == "off" || addr == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--tftp %s: want HOST:PORT, :PORT or off", addr)
	}
	if s.tftp = s.inherited.packetConn(port); s.tftp != nil {
		return nil
	}
	if s.tftp, err = net.ListenPacket("udp", addr); err != nil {
		s.tftp = nil
		return explain(err, "udp", "--tftp", port)
	}
	return nil
}

// useForeign is for a machine on which another program has port 111, an rpcbind
// most likely: nodes must find us by it.
func (s *sockets) useForeign(ctx context.Context, listen string, taken error, log *zap.Logger) (err error) {
	s.unregister, err = nfs.Register(ctx, nfs.RPCBind, s.ports())
	if err == nil {
		log.Info("registered with the port mapper of this machine", zap.String("which", holder("tcp", 111)))
		return nil
	}
	host, _, _ := net.SplitHostPort(listen)
	ln, err2 := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(klibcMountPort)))
	if err2 != nil {
		return errors.Join(taken, err, err2)
	}
	s.tcp = append(s.tcp, ln)
	log.Warn("port 111 is taken, and NFS cannot be registered there: nodes need port=2049, and MOUNT is answered on port 627 too, where klibc looks; better stop that program (systemctl disable --now rpcbind.socket rpcbind)",
		zap.NamedError("port 111", taken), zap.NamedError("register", err))
	return nil
}

// explain says what to do about a port that cannot be had.
func explain(err error, network, flag, port string) error {
	n, _ := strconv.Atoi(port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		who := holder(network, n)
		if threads, _ := os.ReadFile("/proc/fs/nfsd/threads"); n == 2049 && len(threads) > 0 && threads[0] != '0' {
			who = "the kernel's own NFS server (systemctl disable --now nfs-server)"
		}
		if flag == "--tftp" {
			who += " (dnsmasq gives no boot files without enable-tftp; systemctl disable --now tftpd-hpa atftpd)"
		}
		return fmt.Errorf("port %s/%s is taken by %s: stop it, or choose another with %s: %w", port, network, who, flag, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port %s needs root or CAP_NET_BIND_SERVICE (sudo, or setcap cap_net_bind_service=+ep on the program); without it choose another with %s: %w", port, flag, err)
	}
	return err
}

// ports is what the port mapper is to say.
func (s *sockets) ports() nfs.Ports {
	n, p := uint16(s.nfs), uint16(s.portmap)
	return nfs.Ports{NFS: n, Mount: n, MountUDP: n, Portmap: p, PortmapUDP: p}
}

// bootPorts is how nodes find the root that their boot files go with.
func (s *sockets) bootPorts() netboot.Ports {
	return netboot.Ports{NFS: s.nfs, Mapper: s.portmap != 0 || s.unregister != nil}
}

func (s *sockets) close() {
	for _, ln := range s.tcp {
		ln.Close()
	}
	for _, pc := range s.udp {
		pc.Close()
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.tftp != nil {
		s.tftp.Close()
	}
	if s.unregister != nil {
		// With nobody there to take it back from, it does not matter.
		_ = s.unregister(context.Background())
	}
}
