package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/netboot"
)

// announce says at start what a user needs to know: where the server is, what
// it serves, and the words for the nodes' kernel command line. Address is where nodes mount
// their root; one that is not valid is found out.
func announce(w io.Writer, x *exports.Exports, homes *exports.Homes, socks *sockets, allow []netip.Prefix, address netip.Addr) error {
	addrs := serverAddrs(boundTo(socks.tcp[0].Addr()))
	var b strings.Builder
	fmt.Fprintf(&b, "rootnfsd is serving NFS version 3 on %s\n", strings.Join(withPort(addrs, socks.nfs), ", "))
	switch {
	case socks.unregister != nil:
		fmt.Fprintln(&b, "port mapper: that of this machine")
	case socks.portmap == 0:
		fmt.Fprintf(&b, "port mapper: none; clients need port=%d,mountport=%d, which klibc's nfsmount in an initramfs does not know\n", socks.nfs, socks.nfs)
	default:
		fmt.Fprintf(&b, "port mapper: port %d, TCP and UDP\n", socks.portmap)
	}
	if socks.tftp != nil {
		fmt.Fprintf(&b, "boot files: TFTP on %s\n", strings.Join(withPort(serverAddrs(boundTo(socks.tftp.LocalAddr())), socks.tftp.LocalAddr().(*net.UDPAddr).Port), ", "))
	}
	if socks.admin != nil {
		fmt.Fprintf(&b, "operators: http://%s\n", socks.admin.Addr())
	}
	fmt.Fprintf(&b, "allowed: %s\n\n", joinPrefixes(allow))
	for _, s := range x.Serving() {
		if s.Promoted.Version == "" {
			fmt.Fprintf(&b, "/%s  nothing is promoted yet: rootnfsd promote VERSION --export %s\n", s.Image, s.Dir)
			continue
		}
		fmt.Fprintf(&b, "/%s  %s  %s\n", s.Image, s.Promoted.Version, s.Promoted.Digest.Short())
	}
	if homes != nil {
		fmt.Fprintln(&b, describeHomes(homes))
	}
	fmt.Fprintf(&b, "\nkernel command line of the nodes:\n  %s\n", commandLine(cmp.Or(address, nodesSee(addrs, allow)), x.Serving()[0].Image, socks.bootPorts()))
	_, err := io.WriteString(w, b.String())
	return err
}

// commandLine is what a node boots with whose boot files come from elsewhere.
func commandLine(server netip.Addr, image string, ports netboot.Ports) string {
	words, _ := (&netboot.Line{Server: server, Ports: ports, Image: image}).All() // which finds fault with words that are not there
	return netboot.Text(words)
}

// boundTo is the address that a socket is bound to.
func boundTo(at net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(at.String())
	return ap.Addr().Unmap()
}

// serverAddrs are the addresses that a socket bound to one answers at, those of this
// machine if it is a wildcard or none: IPv4 first, for boot loaders know no other.
func serverAddrs(bound netip.Addr) []netip.Addr {
	if bound.IsValid() && !bound.IsUnspecified() {
		return []netip.Addr{bound}
	}
	var v4, v6 []netip.Addr
	ifaddrs, _ := net.InterfaceAddrs()
	for _, ia := range ifaddrs {
		p, err := netip.ParsePrefix(ia.String())
		switch a := p.Addr(); {
		case err != nil || a.IsLoopback() || a.IsLinkLocalUnicast():
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
	}
	if all := append(v4, v6...); len(all) > 0 {
		return all
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// nodesSee picks the address to put on the command line: one in a network whose
// nodes are allowed, as the server is most likely in it too.
func nodesSee(addrs []netip.Addr, allow []netip.Prefix) netip.Addr {
	for _, a := range addrs {
		for _, p := range allow {
			if a.Is4() && p.Contains(a) {
				return a
			}
		}
	}
	return addrs[0]
}

func withPort(addrs []netip.Addr, port int) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, uint16(port)).String())
	}
	return out
}

func joinPrefixes(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}
