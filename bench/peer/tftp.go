package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// BootDir is where servers of TFTP have their files in a tree, and BootFile one of them,
// which must be there: when a server gives it out, it is ready.
const (
	BootDir  = "boot/firmware"
	BootFile = "initramfs8"
)

const (
	dnsmasqProgram = "dnsmasq"
	tftpdProgram   = "in.tftpd"
)

// MissingDnsmasq returns what to do if dnsmasq cannot be run here, or nil. It can serve
// TFTP at port 69 alone.
func MissingDnsmasq() error {
	if _, err := exec.LookPath(dnsmasqProgram); err != nil {
		return errors.New("dnsmasq is not installed (apt-get install dnsmasq-base)")
	}
	if os.Geteuid() != 0 {
		return errors.New("dnsmasq serves TFTP at port 69, which needs root")
	}
	return nil
}

// MissingTFTPD returns what to do if tftpd-hpa cannot be run here, or nil.
func MissingTFTPD() error {
	if _, err := exec.LookPath(tftpdProgram); err != nil {
		return errors.New("tftpd-hpa is not installed (apt-get install tftpd-hpa)")
	}
	if os.Geteuid() != 0 {
		return errors.New("tftpd-hpa shuts itself up in the directory that it serves (chroot), which needs root")
	}
	return nil
}

// newTFTP returns a server that is to be started at an address of its own, and the
// directory to start it with.
func newTFTP(name, about string) (s *Server, dir string, err error) {
	at, err := freeDatagramAddr()
	if err != nil {
		return nil, "", err
	}
	if dir, err = os.MkdirTemp("", "rootnfsd-bench"); err != nil {
		return nil, "", err
	}
	return &Server{Name: name, About: about, TFTPAddr: at}, dir, nil
}

// RootnfsdTFTP seals a tree into a store of its own, and serves its boot files over TFTP
// by the program at a path, which may be given more flags of serve.
func RootnfsdTFTP(ctx context.Context, program, tree string, flags ...string) (*Server, error) {
	s, dir, err := newTFTP("rootnfsd", about(program, "--version")+", serve with its defaults")
	if err != nil {
		return nil, err
	}
	store := filepath.Join(dir, "images")
	if err := sealBootFiles(ctx, program, store, tree); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	args := append([]string{"serve", "--export", store, "--listen", "127.0.0.1:0", "--portmap", "off", "--tftp", s.TFTPAddr.String()}, flags...)
	return s, s.start(ctx, dir, program, args...)
}

// sealBootFiles makes a store with a tree as the version that is promoted.
func sealBootFiles(ctx context.Context, program, store, tree string) error {
	if err := os.MkdirAll(store, 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"seal", "--export", store, "--from", tree, "v1"},
		{"promote", "v1", "--force", "--export", store}, // nothing could boot from what is just boot files
	} {
		if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s a store of boot files: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// Dnsmasq serves the boot files of a tree by dnsmasq, unless MissingDnsmasq. Port 69 of
// loopback must be free.
func Dnsmasq(ctx context.Context, tree string) (*Server, error) {
	if err := MissingDnsmasq(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	const configured = "TFTP alone, 1024 transfers at once where its default is 50, no log of transfers"
	s := &Server{
		Name:     "dnsmasq",
		About:    strings.TrimSuffix(firstWords(about(dnsmasqProgram, "--version"), 3), ",") + ", " + configured,
		TFTPAddr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 69),
	}
	return s, s.start(ctx, dir, dnsmasqProgram,
		"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root",
		"--pid-file="+filepath.Join(dir, "pid"), "--log-facility=-", "--quiet-tftp",
		"--listen-address=127.0.0.1", "--bind-interfaces",
		"--enable-tftp", "--tftp-root="+filepath.Join(tree, BootDir), "--tftp-max=1024")
}

// TFTPD serves the boot files of a tree by tftpd-hpa, unless MissingTFTPD. It makes a
// process for each transfer, and does not wait for it: see Family.
func TFTPD(ctx context.Context, tree string) (*Server, error) {
	if err := MissingTFTPD(); err != nil {
		return nil, err
	}
	s, dir, err := newTFTP("tftpd-hpa", about(tftpdProgram, "-V")+", a process for each transfer, else its defaults")
	if err != nil {
		return nil, err
	}
	if s.group, err = newControlGroup(); err != nil {
		s.About += "; its CPU cannot be told: " + err.Error()
	}
	return s, s.start(ctx, dir, tftpdProgram, "-L", "-a", s.TFTPAddr.String(), "-s", filepath.Join(tree, BootDir))
}

func firstWords(s string, n int) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(n, len(words))], " ")
}

// freeDatagramAddr is FreeAddr for UDP.
func freeDatagramAddr() (netip.AddrPort, error) {
	addr, err := FreeAddr()
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(addr)
}

// tryTFTP asks a server for BootFile, and gives up the transfer when that has begun.
func tryTFTP(ctx context.Context, server netip.AddrPort) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer c.Close()
	const patience = 300 * time.Millisecond
	c.SetDeadline(time.Now().Add(patience))
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })()
	// RFC 1350, section 5: opcodes are two bytes, of which the first is zero.
	const request, data, failure, options = 1, 3, 5, 6
	if _, err := c.WriteToUDPAddrPort(append([]byte{0, request}, BootFile+"\x00octet\x00"...), server); err != nil {
		return err
	}
	buf := make([]byte, 1024)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	switch {
	case err != nil:
		return errors.New("no answer")
	case n >= 4 && (buf[1] == data || buf[1] == options):
		_, err := c.WriteToUDPAddrPort([]byte("\x00\x05\x00\x00Early terminate\x00"), from)
		return err
	case n >= 4 && buf[1] == failure:
		return fmt.Errorf("it says %q", bytes.TrimRight(buf[4:n], "\x00"))
	}
	return errors.New("an answer that makes no sense")
}
