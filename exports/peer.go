package exports

import (
	"net/netip"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is the other end of a connection: an address, and the node that it is.
// A connection asks for one when it begins and presents it with each call.
type Peer struct {
	addr     netip.Addr
	allowed  bool
	reserved bool // its port is one that only the node's root can have
	nodes    *nodes
	part     uint32               // of tallies, to count in
	node     atomic.Pointer[node] // nil until the address has used something

	identities atomic.Pointer[identities] // nil until they are needed
	seen       sync.Once                  // guards the making of cards
	cards      []string                   // MAC addresses that the kernel sees at the address
	look       func(netip.Addr) []string  // for them
}

// macs returns the MAC addresses that the kernel saw at the address when this was first needed.
func (p *Peer) macs() []string {
	p.seen.Do(func() { p.cards = p.look(p.addr) })
	return p.cards
}

// reservedPorts is how many ports, from 0 on, only a superuser can send from
// (IPPORT_RESERVED).
const reservedPorts = 1024

// Peer returns the record of the client that calls from there. An address that never uses a
// version leaves no trace, so that nobody fills memory by knocking.
func (x *Exports) Peer(from netip.AddrPort) *Peer {
	addr := from.Addr().Unmap().WithZone("")
	p := &Peer{addr: addr, allowed: allows(x.allow, addr), reserved: from.Port() < reservedPorts, nodes: &x.nodes, look: x.macsAt}
	p.part = x.nodes.peers.Add(1) % tallyParts
	p.node.Store(x.nodes.get(addr))
	return p
}

// Addr is the address.
func (p *Peer) Addr() netip.Addr { return p.addr }

// Allowed reports whether the address may mount anything.
func (p *Peer) Allowed() bool { return p.allowed }

// ambiguous reports whether another node, on another link, may have the same
// address.
func (p *Peer) ambiguous() bool { return p.addr.Is6() && p.addr.IsLinkLocalUnicast() }

// homeID is what the handles of p's home say.
func (p *Peer) homeID(shared bool) uint64 {
	return homeID(nodeName(p.addr), shared)
}

// touch notes that p made a call with a handle of v. It is on the path of every
// call: where nothing new is learnt it loads a few words and adds to one. It
// returns where to count, and where to note, what p reads; the latter is nil if p is not booting.
func (p *Peer) touch(v *version) (*tallyPart, *bootLog) {
	now := p.nodes.now.Load()
	if n := p.node.Load(); n != nil {
		for _, u := range *n.uses.Load() {
			if u.version == v {
				if u.last.Load() != now {
					u.last.Store(now)
				}
				part := &u.tally.parts[p.part]
				part.calls.Add(1)
				return part, u.bootLog(now)
			}
		}
	}
	u := p.nodes.use(p, v)
	u.last.Store(now)
	part := &u.tally.parts[p.part]
	part.calls.Add(1)
	return part, nil
}

// bootLog returns where to note what is read at the time now.
func (u *use) bootLog(now int64) *bootLog {
	l := u.boot.Load()
	if l != nil && now > u.bootEnd.Load() {
		u.boot.Store(nil)
		return nil
	}
	return l
}

// mounted notes that p mounted path, which led to the target, with a layer, if that is not 0, and reports
// whether that began a boot.
func (p *Peer) mounted(to target, path string, booting bool, layer uint64) (u *use, began bool) {
	p.nodes.tick() // a boot is compared with when its version was promoted
	u = p.nodes.use(p, to.version)
	now := p.nodes.now.Load()
	if began = p.begins(u, path, booting, now); began {
		u.began.Store(now)
		u.root.Store(&path)
		u.boots.Add(1)
		u.tally.set(Tally{})
	}
	if to.version.draft == nil && to.image.trusts(p) && (booting || u.booted.Load() == 0) {
		u.layer.Store(layer)
	}
	u.mounted.Store(now)
	if booting {
		u.booted.Store(now)
	}
	if to.version.draft == nil { // what a draft reads says nothing of other versions
		u.bootEnd.Store(now + int64(bootTime/time.Second))
		u.boot.Store(to.version.bootLogFor(booting))
	}
	u.exact.Store(to.wanted != "" && !p.node.Load().wasGiven(to.version))
	u.path.Store(&path)
	p.nodes.dirty.Store(true)
	return u, began
}

// notMounted takes back that p mounted a version: it is given another one.
func (p *Peer) notMounted(v *version) {
	u := p.nodes.use(p, v)
	u.mounted.Store(0)
	u.booted.Store(0)
	u.began.Store(0)
	u.path.Store(nil)
}

// retryTime is how long an initramfs may try to mount its root again without calls on it that
// would show another boot.
const retryTime = 10

// begins reports whether a mount of u's version at the time now is the first of a boot. On a node that was seen
// to boot by an initramfs only such a mount is. On others, one of what was mounted first: whatever they mount
// beside it is no root. Nfsmount repeats a mount whose reply was lost, or that the kernel
// did not take. A port that any user of the node could have says nothing.
func (p *Peer) begins(u *use, path string, booting bool, now int64) bool {
	n := p.node.Load()
	if booting {
		n.initramfs.Store(true)
	}
	before, root := u.began.Load(), u.root.Load()
	switch {
	case !p.reserved, !booting && n.initramfs.Load():
		return false
	case before == 0:
		return true
	case !booting && root != nil && *root != path:
		return false
	}
	return u.last.Load() >= before && now-before >= retryTime ||
		slices.ContainsFunc(*n.uses.Load(), func(other *use) bool { return other != u && other.began.Load() >= before })
}

// mountedHome notes that p mounted its home, which a node does when it is up.
func (p *Peer) mountedHome() {
	if n := p.node.Load(); n != nil {
		n.home.Store(p.nodes.now.Load())
		p.nodes.dirty.Store(true)
	}
}

// MarkGood notes that the node at an address says that it is up and well. It reports whether
// the node is known: it has to have mounted a version.
func (x *Exports) MarkGood(addr netip.Addr) bool {
	n := x.nodes.get(addr.Unmap().WithZone(""))
	if n == nil || len(*n.uses.Load()) == 0 {
		return false
	}
	n.good.Store(x.nodes.now.Load())
	x.nodes.dirty.Store(true)
	return true
}

// MountEntry is one line of showmount -a.
type MountEntry struct{ Host, Path string }

// Mounts lists what is mounted as far as is known: clients do not always say
// when they go.
func (x *Exports) Mounts() []MountEntry {
	var list []MountEntry
	for _, n := range x.nodes.all() {
		for _, u := range *n.uses.Load() {
			if path := u.path.Load(); path != nil {
				list = append(list, MountEntry{Host: n.addr.String(), Path: *path})
			}
		}
	}
	return list
}

// Unmount notes that p says it has unmounted path.
func (x *Exports) Unmount(p *Peer, dir string) {
	p.unmounted(func(mounted string) bool { return mounted == path.Clean(dir) })
}

// UnmountAll notes that p says it has unmounted all it had.
func (x *Exports) UnmountAll(p *Peer) { p.unmounted(func(string) bool { return true }) }

func (p *Peer) unmounted(which func(path string) bool) {
	n := p.node.Load()
	if n == nil {
		return
	}
	for _, u := range *n.uses.Load() {
		if path := u.path.Load(); path != nil && which(*path) {
			u.path.Store(nil)
			p.nodes.dirty.Store(true)
		}
	}
}
