package nfs

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// The port mapper (RFC 1833) here tells where this server's own programs are.
// Nobody can register anything with it, and it calls nobody on another's behalf
// (CALLIT), which is what port mappers are abused for.

// Numbers of protocols in version 2.
const (
	protoTCP = 6
	protoUDP = 17
)

// service is something that the port mapper knows of.
type service struct {
	prog, vers uint32
	proto      uint32
	port       uint16
}

// services lists what is offered, in the order of rpcinfo -p.
func (p *Ports) services() []service {
	all := []service{
		{progPortmap, 4, protoTCP, p.Portmap},
		{progPortmap, 3, protoTCP, p.Portmap},
		{progPortmap, 2, protoTCP, p.Portmap},
		{progPortmap, 4, protoUDP, p.PortmapUDP},
		{progPortmap, 3, protoUDP, p.PortmapUDP},
		{progPortmap, 2, protoUDP, p.PortmapUDP},
		{progNFS, nfsVersion, protoTCP, p.NFS},
		{progMount, 1, protoTCP, p.Mount},
		{progMount, mountVersion, protoTCP, p.Mount},
		{progMount, 1, protoUDP, p.MountUDP},
		{progMount, mountVersion, protoUDP, p.MountUDP},
	}
	offered := all[:0]
	for _, s := range all {
		if s.port != 0 {
			offered = append(offered, s)
		}
	}
	return offered
}

// port returns where a program is, or 0. As rpcbind does, it takes another
// version for an answer if the one asked for is not there: the program itself
// says best which versions it has.
func (p *Ports) port(prog, vers, proto uint32, exact bool) uint16 {
	var other uint16
	for _, s := range p.services() {
		if s.prog != prog || s.proto != proto {
			continue
		}
		if s.vers == vers {
			return s.port
		}
		other = s.port
	}
	if exact {
		return 0
	}
	return other
}

// portmapProcedures answers version 2 (RFC 1833, section 3.2). 5 is CALLIT.
var portmapProcedures = [...]procedure{
	0: null,
	1: (*call).refuseMapping,
	2: (*call).refuseMapping,
	3: (*call).getPort,
	4: (*call).dumpPorts,
}

// rpcbindProcedures answers versions 3 and 4 (RFC 1833, section 2.2), as far as
// they are lookups.
var rpcbindProcedures = [...]procedure{
	0: null,
	1: (*call).refuseBinding,
	2: (*call).refuseBinding,
	3: (*call).getAddr,
	4: (*call).dumpAddrs,
	6: (*call).getTime,
	9: (*call).getVersAddr,
}

// Procedures of version 3 end at TADDR2UADDR, so it has no GETVERSADDR.
const rpcbind3Procedures = 9

func (c *call) portmapProcedure() (procedure, wire.AcceptStat) {
	switch c.header.Vers {
	case 2:
		return pick(portmapProcedures[:], c.header.Proc)
	case 3:
		return pick(rpcbindProcedures[:rpcbind3Procedures], c.header.Proc)
	case 4:
		return pick(rpcbindProcedures[:], c.header.Proc)
	}
	return c.mismatch(2, 4)
}

// refuseMapping answers SET and UNSET of version 2: nothing was changed.
func (c *call) refuseMapping() wire.AcceptStat {
	c.mapping()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	c.out.Bool(false)
	return wire.Success
}

// mapping decodes the arguments of version 2, the last of which is a port.
func (c *call) mapping() (prog, vers, proto uint32) {
	prog, vers, proto = c.args.Uint32(), c.args.Uint32(), c.args.Uint32()
	c.args.Uint32()
	return prog, vers, proto
}

func (c *call) getPort() wire.AcceptStat {
	prog, vers, proto := c.mapping()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	c.out.Uint32(uint32(c.srv.ports.port(prog, vers, proto, false)))
	return wire.Success
}

func (c *call) dumpPorts() wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	for _, s := range c.srv.ports.services() {
		c.out.Bool(true)
		c.out.Uint32(s.prog)
		c.out.Uint32(s.vers)
		c.out.Uint32(s.proto)
		c.out.Uint32(uint32(s.port))
	}
	c.out.Bool(false)
	return wire.Success
}

// maxUniversal bounds the strings of versions 3 and 4: a network's name, a
// universal address, an owner.
const maxUniversal = 256

// binding decodes the arguments of versions 3 and 4.
func (c *call) binding() (prog, vers uint32, netid string) {
	prog, vers = c.args.Uint32(), c.args.Uint32()
	netid = string(c.args.Opaque(maxUniversal))
	c.args.Opaque(maxUniversal) // address
	c.args.Opaque(maxUniversal) // owner
	return prog, vers, netid
}

// refuseBinding answers SET and UNSET of versions 3 and 4.
func (c *call) refuseBinding() wire.AcceptStat {
	c.binding()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	c.out.Bool(false)
	return wire.Success
}

func (c *call) getAddr() wire.AcceptStat     { return c.address(false) }
func (c *call) getVersAddr() wire.AcceptStat { return c.address(true) }

// address answers with the universal address of a program, which is empty if
// there is none on the network asked for. The host in it is the one that the
// caller reached.
func (c *call) address(exact bool) wire.AcceptStat {
	prog, vers, netid := c.binding()
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	tcp, udp := c.netids()
	if netid == "" {
		netid = tcp
		if c.datagram {
			netid = udp
		}
	}
	var port uint16
	switch netid {
	case tcp:
		port = c.srv.ports.port(prog, vers, protoTCP, exact)
	case udp:
		port = c.srv.ports.port(prog, vers, protoUDP, exact)
	}
	if port == 0 {
		c.out.String("")
	} else {
		c.out.String(universalAddr(c.local.Addr(), port))
	}
	return wire.Success
}

// netids returns the names of the networks through which the caller can reach
// the address that it called (RFC 5665, section 5).
func (c *call) netids() (tcp, udp string) {
	if c.local.Addr().Is6() {
		return "tcp6", "udp6"
	}
	return "tcp", "udp"
}

// universalAddr writes an address as rpcbind does: the host, and the bytes of
// the port in decimal (RFC 5665, section 5.2.3.3). There is none of an unknown
// host.
func universalAddr(host netip.Addr, port uint16) string {
	if !host.IsValid() {
		return ""
	}
	return fmt.Sprintf("%s.%d.%d", host.WithZone(""), port>>8, port&0xff)
}

func (c *call) dumpAddrs() wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	tcp, udp := c.netids()
	for _, s := range c.srv.ports.services() {
		netid := tcp
		if s.proto == protoUDP {
			netid = udp
		}
		c.out.Bool(true)
		c.out.Uint32(s.prog)
		c.out.Uint32(s.vers)
		c.out.String(netid)
		c.out.String(universalAddr(c.local.Addr(), s.port))
		c.out.String("superuser")
	}
	c.out.Bool(false)
	return wire.Success
}

func (c *call) getTime() wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	c.out.Uint32(uint32(time.Now().Unix()))
	return wire.Success
}
