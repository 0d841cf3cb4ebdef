package exports

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
)

// BootID is how a node that fetches boot files says who it is, by the directory in which it asks for them. Nobody
// has checked it, so that it decides which version the node gets, and no secret. Both fields are empty
// for a node that says nothing.
type BootID struct {
	Serial string // the last eight hexadecimal digits of a Raspberry Pi's
	MAC    string // as in dc:a6:32:01:36:c2
}

// BootStep is where in a boot a file is asked for, as far as its name tells.
type BootStep int

// The steps. A node that asks for what comes first after it has asked for what comes last boots again.
const (
	BootAny BootStep = iota
	BootFirst
	BootLast
)

// Boot is what a node gets that fetches boot files: one version, from the first file until its root is
// mounted.
type Boot struct {
	Image string
	Ref
	Tree fs.Tree
	// Node is what operators have said of the node; nil if that is nothing. It must not be changed.
	Node *Entry
	// Draft is set where the version is a draft of the node: it mounts that read-write, and what it has cached may change.
	Draft bool
	// Trusted is set where the node asks from an address that is its own by the inventory, and no other machine is known to
	// have that address: the same that decides whether it gets files of its own.
	Trusted bool
	// Elsewhere is set where the address is by the inventory that of another node.
	Elsewhere bool

	node *node
}

const (
	// bootFilesTime is how long after its last request, in seconds, a boot gets the same version, and
	// bootFilesMost after its first: a node that fails and begins anew shall get what is
	// promoted meanwhile.
	bootFilesTime = 2 * 60
	bootFilesMost = 10 * 60
	// mostBootFiles bounds how many boots are known at once. Beyond, the one that asked least recently is
	// forgotten, which matters only if something is promoted before it ends.
	mostBootFiles = 8192
)

// fetching is a boot that is under way. Times are in seconds since the epoch.
type fetching struct {
	key         fetchKey
	image       uint32 // export id
	ref         Ref
	first, last int64
	late        bool // what comes last was asked for
}

// fetchKey tells boots apart: several nodes may have one address, behind a NAT.
type fetchKey struct {
	addr netip.Addr
	id   BootID
}

// bootFiles are the boots that are under way.
type bootFiles struct {
	mu      sync.Mutex
	byKey   map[fetchKey]*fetching
	byAddr  map[netip.Addr][]*fetching
	serials map[string]netip.Addr // where a serial number was seen last
}

// get returns a boot that is under way, or nil. The caller holds mu.
func (b *bootFiles) get(key fetchKey, now int64) *fetching {
	f := b.byKey[key]
	if f == nil || f.over(now) {
		return nil
	}
	return f
}

func (f *fetching) over(now int64) bool {
	return now-f.last >= bootFilesTime || now-f.first >= bootFilesMost
}

// add adds a boot, in place of the one before. The caller holds mu.
func (b *bootFiles) add(f *fetching) {
	if b.byKey == nil {
		b.byKey, b.byAddr, b.serials = map[fetchKey]*fetching{}, map[netip.Addr][]*fetching{}, map[string]netip.Addr{}
	}
	if old := b.byKey[f.key]; old != nil {
		b.drop(old)
	}
	if len(b.byKey) >= mostBootFiles {
		b.dropOldest()
	}
	b.byKey[f.key] = f
	b.byAddr[f.key.addr] = append(b.byAddr[f.key.addr], f)
}

func (b *bootFiles) dropOldest() {
	var oldest *fetching
	for _, f := range b.byKey {
		if oldest == nil || f.last < oldest.last {
			oldest = f
		}
	}
	b.drop(oldest)
}

// drop forgets a boot. The caller holds mu.
func (b *bootFiles) drop(f *fetching) {
	delete(b.byKey, f.key)
	rest := slices.DeleteFunc(slices.Clone(b.byAddr[f.key.addr]), func(o *fetching) bool { return o == f })
	if len(rest) == 0 {
		delete(b.byAddr, f.key.addr)
		return
	}
	b.byAddr[f.key.addr] = rest
}

// sweep forgets the boots that are over.
func (b *bootFiles) sweep(now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.byKey {
		if f.over(now) {
			b.drop(f)
		}
	}
}

// promised returns the version of an image that the node at an address boots, if exactly one node there boots.
func (b *bootFiles) promised(addr netip.Addr, image uint32, now int64) (Ref, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.byAddr[addr]
	if len(all) != 1 || all[0].image != image || all[0].over(now) {
		return Ref{}, false
	}
	return all[0].ref, true
}

// mounted ends the boot of the node at an address, if exactly one node there boots the version.
func (b *bootFiles) mounted(addr netip.Addr, ref Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if all := b.byAddr[addr]; len(all) == 1 && all[0].ref.Digest == ref.Digest {
		b.drop(all[0])
	}
}

// seenAt notes where a serial number is, and returns where it was before, if that is elsewhere. The caller holds mu.
func (b *bootFiles) seenAt(serial string, addr netip.Addr) (before netip.Addr) {
	if serial == "" {
		return before
	}
	if was := b.serials[serial]; was != addr {
		before = was
	}
	if len(b.serials) >= mostBootFiles {
		clear(b.serials)
	}
	b.serials[serial] = addr
	return before
}

// Netboot is what a node was given when it last fetched boot files.
type Netboot struct {
	Serial  string `json:"serial,omitempty"` // as it says
	MAC     string `json:"mac,omitempty"`    // as it says or, if it does not, as the kernel knows it
	SaidMAC bool   `json:"said_mac,omitempty"`
	Ref
	At time.Time `json:"at"` // when it began
	// Named is set if it was given a command line, which names the version.
	Named bool `json:"command_line,omitempty"`
}

// fetched is a node's Netboot while the server runs.
type fetched struct {
	image string
	Netboot
}

// Boot returns what a node gets that asks from an address for a boot file. From the first file of a boot on it is
// one version, whatever is promoted, until the node mounts its root, or asks for nothing for two
// minutes; the mount gets the same version. Errors: fs.ErrAccess where the address may not mount, fs.ErrWouldBlock where
// the node is too early (Config.Starting), fs.ErrNotExist where nothing is promoted for it, fs.ErrIO
// where the version cannot be opened.
func (x *Exports) Boot(from netip.Addr, id BootID, step BootStep) (*Boot, error) {
	addr := from.Unmap().WithZone("")
	if !allows(x.allow, addr) {
		return nil, fs.ErrAccess
	}
	x.nodes.tick()
	x.refreshIfPromoted()
	t := x.table.Load()
	f, v, err := x.boot(t, fetchKey{addr, id}, step)
	if err != nil {
		return nil, err
	}
	tree, err := v.bootTree()
	if err != nil {
		return nil, err
	}
	nd := x.nodes.get(addr)
	b := &Boot{Image: v.image.name, Ref: f.ref, Tree: tree, Draft: v.draft != nil, node: nd}
	inv := t.imageOf(f.image).inventory
	at := inv.At(addr)
	b.Node = cmp.Or(inv.saying(id), at, inv.saying(nd.machineSeen()))
	b.Elsewhere = at != nil && at != b.Node
	if at != nil && at == b.Node && nd != nil {
		_, other := x.otherMachine(v.image, nd, at)
		b.Trusted = other == ""
	}
	return b, nil
}

// boot returns the boot that is under way, or begins it.
func (x *Exports) boot(t *table, key fetchKey, step BootStep) (*fetching, *version, error) {
	now := x.nodes.now.Load()
	b := &x.bootFiles
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.get(key, now)
	if f != nil && !(f.late && step == BootFirst) {
		if img := t.imageOf(f.image); img != nil {
			if v := img.holding(f.ref); v != nil && (v.draft == nil || x.ownsDraft(img, img.draftWith(v), x.asker(key.addr))) {
				f.last, f.late = now, f.late || step == BootLast
				return f, v, nil
			}
		}
	}
	mac := key.id.MAC
	if macs := x.macsAt(key.addr); mac == "" && len(macs) > 0 {
		mac = macs[0]
	}
	img, e := t.imageFor(key.addr, key.id, BootID{MAC: mac})
	if img == nil {
		return nil, nil, fs.ErrNotExist
	}
	ref, _ := img.rollout.sealed(memberOf(e, key.addr))
	if d := x.draftAt(img, e, key.addr); d != nil {
		ref = d.Ref
	}
	v := img.holding(ref)
	switch {
	case v == nil && x.starting.Load():
		return nil, nil, fs.ErrWouldBlock
	case v == nil:
		return nil, nil, fmt.Errorf("%w: %s", fs.ErrNotExist, t.hint(target{image: img, promise: &ref}))
	}
	f = &fetching{key: key, image: img.id, ref: Ref{Version: v.name, Digest: v.digest}, first: now, last: now, late: step == BootLast}
	b.add(f)
	was := b.seenAt(key.id.Serial, key.addr)
	x.nodes.netbooted(key.addr, fetched{img.name, Netboot{Serial: key.id.Serial, MAC: mac, SaidMAC: key.id.MAC != "", Ref: f.ref, At: instant(now)}})
	log := x.log.With(zap.String("image", img.name), zap.String("version", v.name), zap.Stringer("address", key.addr), zap.String("serial", key.id.Serial), zap.String("mac", mac))
	log.Info("a node fetches boot files", zap.String("node", memberOf(e, key.addr).Key))
	if was.IsValid() {
		log.Warn("a serial number that was at another address before: the node has got another address, or two machines say that they are it; files of its own go to the address that the inventory has (rootnfsd node set --address)", zap.Stringer("before", was))
	}
	return f, v, nil
}

// imageFor returns the image that a node boots, and its entry there if it has one: the image
// whose inventory knows it, else the first one.
func (t *table) imageFor(addr netip.Addr, says, seen BootID) (*imageView, *Entry) {
	for _, img := range t.images {
		if e := cmp.Or(img.inventory.saying(says), img.inventory.At(addr), img.inventory.saying(seen)); e != nil {
			return img, e
		}
	}
	if len(t.images) == 0 {
		return nil, nil
	}
	return t.images[0], nil
}

// saying returns the entry of the node that says that it is id, or nil.
func (inv *Inventory) saying(id BootID) *Entry {
	if i, ok := inv.bySerial[id.Serial]; ok {
		return &inv.Entries[i]
	}
	if i, ok := inv.byMAC[id.MAC]; ok {
		return &inv.Entries[i]
	}
	return nil
}

// Of returns the entry of a node that was seen, or nil: by its address or, where nobody has named
// that, by what the node said when it fetched boot files.
func (inv *Inventory) Of(n *Node) *Entry {
	if e := inv.At(n.Addr); e != nil || n.Netboot == nil {
		return e
	}
	return inv.saying(BootID{n.Netboot.Serial, n.Netboot.MAC})
}

// CommandLineGiven notes that the node was given a command line that names the version: when it mounts
// that, it is because it was promised.
func (x *Exports) CommandLineGiven(b *Boot) {
	if b.node == nil {
		return
	}
	for {
		old := b.node.netboot.Load()
		if old == nil || old.Named || old.Digest != b.Digest {
			return
		}
		named := *old
		named.Named = true
		if b.node.netboot.CompareAndSwap(old, &named) {
			x.nodes.dirty.Store(true)
			return
		}
	}
}

// machineSeen is what the node at an address last said of itself.
func (nd *node) machineSeen() BootID {
	if nd == nil {
		return BootID{}
	}
	f := nd.netboot.Load()
	if f == nil {
		return BootID{}
	}
	return BootID{f.Serial, f.MAC}
}

// wasGiven reports whether the node's command line names a version because this server wrote it.
func (nd *node) wasGiven(v *version) bool {
	f := nd.netboot.Load()
	return f != nil && f.Named && f.image == v.image.name && f.Digest == v.digest
}

// netbooted notes what a node is given that fetches boot files.
func (n *nodes) netbooted(addr netip.Addr, f fetched) {
	n.known(addr).netboot.Store(&f)
	n.dirty.Store(true)
}

// restoreBoots takes up the boots that a server before this one began.
func (x *Exports) restoreBoots(t *table) {
	x.bootFiles.mu.Lock()
	defer x.bootFiles.mu.Unlock()
	now := x.nodes.now.Load()
	for _, nd := range x.nodes.all() {
		saved := nd.netboot.Load()
		if saved == nil {
			continue
		}
		id := BootID{Serial: saved.Serial}
		if saved.SaidMAC {
			id.MAC = saved.MAC
		}
		at := seconds(saved.At)
		for _, img := range t.images {
			f := &fetching{key: fetchKey{nd.addr, id}, image: img.id, ref: saved.Ref, first: at, last: at, late: saved.Named}
			if img.name == saved.image && !f.over(now) {
				x.bootFiles.add(f)
			}
		}
	}
}
