package exports

import (
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

// Boot is what a node gets that fetches a boot file: of one version, from the first file until its root is
// mounted. Done must be called when the file is sent, or is not.
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

	exports *Exports
	of      *fetching
	key     fetchKey
}

const (
	// bootFilesTime is how long after its last request, in seconds, a boot gets the same version, and
	// bootFilesMost how long after its first a request for what comes first begins another one, whatever was asked for
	// before: a node that fails and begins anew shall get what is promoted meanwhile. A file that is under way is not interrupted.
	bootFilesTime = 2 * 60
	bootFilesMost = 10 * 60
	// mostBootFiles bounds how many boots are known at once, and mostAtAddress of one address. Beyond, the one that asked
	// least recently is forgotten, which matters only if something is promoted before it ends.
	mostBootFiles = 8192
	mostAtAddress = 64
)

// fetching is a boot that is under way. Times are in seconds since the server began: the clock of a server without a battery may
// jump by years when it is set.
type fetching struct {
	key         fetchKey
	image       uint32 // export id
	ref         Ref
	why         Why      // it gets that
	macs        []string // that the kernel sees at the address, once it sees any
	first, last int64
	files       int   // that are being sent
	late        bool  // what comes last was asked for
	mounted     int64 // when the root was mounted; 0 if it was not yet
	// confirmed is set when the node has answered: who only sends a datagram may have made up where it comes from.
	confirmed bool
}

// fetchKey tells boots apart: several nodes may have one address, behind a NAT.
type fetchKey struct {
	addr netip.Addr
	id   BootID
}

// bootFiles are the boots that are under way.
type bootFiles struct {
	clock func() int64

	mu      sync.Mutex // guards what follows
	byKey   map[fetchKey]*fetching
	byAddr  map[netip.Addr][]*fetching
	serials map[string]netip.Addr // where a serial number was seen last
	minute  int64                 // that told is of
	told    map[netip.Addr]int    // boots that were logged
}

func (b *bootFiles) init(began time.Time) {
	b.clock = func() int64 { return int64(time.Since(began)/time.Second) + 1 }
	b.byKey, b.byAddr, b.serials, b.told = map[fetchKey]*fetching{}, map[netip.Addr][]*fetching{}, map[string]netip.Addr{}, map[netip.Addr]int{}
}

// over reports whether the next file that is asked for begins another boot.
func (f *fetching) over(now int64) bool {
	return f.mounted > 0 || f.files == 0 && now-f.last >= bootFilesTime
}

// restarts reports whether a request is the first of another boot.
func (f *fetching) restarts(step BootStep, now int64) bool {
	return step == BootFirst && (f.late || f.files == 0 && now-f.first >= bootFilesMost)
}

// find returns the boot that a request is of, or nil: a node that does not say who it is may have said so before, and one
// that says it may not have before, as a Pi 3 whose boot ROM asks without. The caller holds mu.
func (b *bootFiles) find(key fetchKey, now int64) *fetching {
	if f := b.byKey[key]; f != nil && !f.over(now) {
		return f
	}
	var only *fetching
	for _, f := range b.byAddr[key.addr] {
		if f.over(now) {
			continue
		}
		if only != nil {
			return nil
		}
		only = f
	}
	if only != nil && (key.id == BootID{} || only.key.id == BootID{}) {
		return only
	}
	return nil
}

// add adds a boot, in place of the one before. The caller holds mu.
func (b *bootFiles) add(f *fetching) {
	if old := b.byKey[f.key]; old != nil {
		b.drop(old)
	}
	if all := b.byAddr[f.key.addr]; len(all) >= mostAtAddress {
		b.drop(oldest(all))
	}
	if len(b.byKey) >= mostBootFiles {
		b.drop(oldest(b.some()))
	}
	b.byKey[f.key] = f
	b.byAddr[f.key.addr] = append(b.byAddr[f.key.addr], f)
}

// oldest returns the boot that asked least recently, of those that were not confirmed if there are any.
func oldest(all []*fetching) (found *fetching) {
	for _, f := range all {
		if found == nil || found.confirmed && !f.confirmed || found.confirmed == f.confirmed && f.last < found.last {
			found = f
		}
	}
	return found
}

// some returns a few of all boots: where a map begins is left to chance, and to look at all of them for each request of a flood would
// keep those waiting that mount.
func (b *bootFiles) some() (few []*fetching) {
	for _, f := range b.byKey {
		if few = append(few, f); len(few) == mostAtAddress {
			break
		}
	}
	return few
}

// drop forgets a boot. The caller holds mu.
func (b *bootFiles) drop(f *fetching) {
	delete(b.byKey, f.key)
	rest := slices.DeleteFunc(b.byAddr[f.key.addr], func(o *fetching) bool { return o == f })
	if len(rest) == 0 {
		delete(b.byAddr, f.key.addr)
		return
	}
	b.byAddr[f.key.addr] = rest
}

// sweep forgets the boots that are over.
func (b *bootFiles) sweep() {
	now := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.byKey {
		if f.over(now) && now-f.mounted >= retryTime {
			b.drop(f)
		}
	}
}

// promised returns the version of an image that the node at an address boots, if exactly one node there boots. Nfsmount repeats a
// mount whose reply was lost, so it is promised for a while after that.
func (b *bootFiles) promised(addr netip.Addr, image uint32) (Ref, bool) {
	now := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.only(addr, now); f != nil && f.image == image {
		return f.ref, true
	}
	return Ref{}, false
}

// only returns the boot at an address, if there is exactly one. The caller holds mu.
func (b *bootFiles) only(addr netip.Addr, now int64) (only *fetching) {
	for _, f := range b.byAddr[addr] {
		if !f.confirmed || f.over(now) && (f.mounted == 0 || now-f.mounted >= retryTime) {
			continue
		}
		if only != nil {
			return nil
		}
		only = f
	}
	return only
}

// mounted ends the boot of the node at an address, if exactly one node there boots the version.
func (b *bootFiles) mounted(addr netip.Addr, ref Ref) {
	now := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.only(addr, now); f != nil && f.mounted == 0 && f.ref.Digest == ref.Digest {
		f.mounted = now
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
	x.refreshIfPromoted()
	t := x.table.Load()
	key := fetchKey{addr, id}
	f, v, key := x.continued(t, key, step)
	if f == nil {
		var err error
		if f, v, err = x.begin(t, key, step); err != nil {
			return nil, err
		}
	}
	b := &Boot{Image: v.image.name, Ref: f.ref, Draft: v.draft != nil, exports: x, of: f, key: key}
	var err error
	if b.Tree, err = v.bootTree(); err != nil {
		b.Done()
		return nil, err
	}
	img, macs := t.imageOf(f.image), x.bootFiles.macsOf(f)
	b.Node, b.Elsewhere = img.inventory.booting(addr, key.id, macs)
	b.Trusted = img.trustsBoot(b.Node, key, macs)
	return b, nil
}

// macsOf returns the MAC addresses that the kernel has seen of a boot.
func (b *bootFiles) macsOf(f *fetching) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f.macs
}

// trustsBoot reports whether who fetches boot files is the node with an entry: it asks from an address that is the node's, and no other
// machine is known to have that.
func (v *imageView) trustsBoot(e *Entry, key fetchKey, macs []string) bool {
	return e != nil && v.inventory.At(key.addr) == e && !e.contradicts(key.id) && v.machines.standing(e, macs) != stranger
}

// continued returns the boot that a request belongs to, and its version, if there is one, and as whose boot it counts.
func (x *Exports) continued(t *table, key fetchKey, step BootStep) (*fetching, *version, fetchKey) {
	b := &x.bootFiles
	now := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.find(key, now)
	if f != nil && len(f.macs) == 0 { // the kernel may have heard of it since
		b.mu.Unlock()
		macs := x.macsAt(key.addr)
		b.mu.Lock()
		if f = b.find(key, now); f != nil && len(f.macs) == 0 {
			f.macs = macs
		}
	}
	if f == nil {
		return nil, nil, key
	}
	if f.restarts(step, now) {
		b.drop(f)
		return nil, nil, key
	}
	v := t.versionOf(f)
	if v == nil {
		return nil, nil, key
	}
	if img := t.imageOf(f.image); v.draft != nil {
		if e, _ := img.inventory.booting(key.addr, key.id, f.macs); !img.trustsBoot(e, key, f.macs) {
			b.drop(f)
			return nil, nil, key
		}
	}
	if f.key.id == (BootID{}) && key.id != f.key.id {
		b.drop(f)
		// Who it turns out to be may be promised something else than a node that does not say who it is.
		next := t.offer(key, f.macs)
		if next.image == nil || next.image.id != f.image || next.ref.Digest != f.ref.Digest && (next.why != ByRollout || f.why != ByRollout) {
			return nil, nil, key
		}
		f.key, f.confirmed = key, false
		b.add(f)
	}
	f.serve(step, now)
	return f, v, f.key
}

// serve notes that a file is given. The caller holds mu.
func (f *fetching) serve(step BootStep, now int64) {
	f.last, f.late = now, f.late || step == BootLast
	f.files++
}

// versionOf returns the version of a boot, or nil if it is gone.
func (t *table) versionOf(f *fetching) *version {
	if img := t.imageOf(f.image); img != nil {
		return img.holding(f.ref)
	}
	return nil
}

// offer is what a node gets that begins to boot now.
type offer struct {
	image *imageView // nil if there is none
	ref   Ref
	why   Why
}

func (t *table) offer(key fetchKey, macs []string) offer {
	img, e := t.imageFor(key.addr, key.id, macs)
	if img == nil {
		return offer{}
	}
	ref, why := img.rollout.sealed(MemberOf(e, key.addr))
	if d := img.draftHeldBy(e); d != nil && img.trustsBoot(e, key, macs) {
		ref, why = d.Ref, ByDraft
	}
	return offer{img, ref, why}
}

// begin begins a boot.
func (x *Exports) begin(t *table, key fetchKey, step BootStep) (*fetching, *version, error) {
	macs := x.macsAt(key.addr)
	to := t.offer(key, macs)
	if to.image == nil {
		return nil, nil, fs.ErrNotExist
	}
	v := to.image.holding(to.ref)
	switch {
	case v == nil && x.starting():
		return nil, nil, fs.ErrWouldBlock
	case v == nil:
		gone := target{image: to.image}
		if to.why != ByRollout {
			gone.promise = &to.ref
		}
		return nil, nil, fmt.Errorf("%w: %s", fs.ErrNotExist, t.hint(gone))
	}
	b := &x.bootFiles
	now := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.byKey[key]; f != nil && !f.over(now) && !f.restarts(step, now) { // another request of the same boot was faster
		if v := t.versionOf(f); v != nil {
			f.serve(step, now)
			return f, v, nil
		}
	}
	f := &fetching{key: key, image: to.image.id, ref: Ref{Version: v.name, Digest: v.digest}, why: to.why, macs: macs, first: now}
	f.serve(step, now)
	b.add(f)
	return f, v, nil
}

// Done says that the file was sent, or was not.
func (b *Boot) Done() {
	all := &b.exports.bootFiles
	now := all.clock()
	all.mu.Lock()
	defer all.mu.Unlock()
	b.of.files--
	b.of.last = now
}

// Confirmed says that the node has answered, so that it is where it says. Only then is it known who boots, and does a mount from there get
// the version.
func (b *Boot) Confirmed() {
	all := &b.exports.bootFiles
	all.mu.Lock()
	f := b.of
	done := f.confirmed || all.byKey[f.key] != f // it is known, or was forgotten
	f.confirmed = true
	key, macs, was, said := f.key, f.macs, netip.Addr{}, false
	if !done {
		was, said = all.seenAt(key.id.Serial, key.addr), all.tell(key.addr)
	}
	all.mu.Unlock()
	if done {
		return
	}
	x := b.exports
	x.nodes.tick()
	n := Netboot{Serial: key.id.Serial, MAC: key.id.MAC, SaidMAC: key.id.MAC != "", Ref: b.Ref, At: instant(x.nodes.now.Load())}
	if len(macs) == 0 {
		macs = x.macsAt(key.addr) // it has answered, so the kernel knows it by now
	}
	if n.MAC == "" && len(macs) > 0 {
		n.MAC = macs[0]
	}
	x.nodes.netbooted(key.addr, fetched{b.Image, n})
	if said {
		x.tellOfBoot(b, key, n.MAC, was)
	}
}

// mostTold is how many boots of one address are logged in a minute: whoever is there can begin as many as it likes.
const mostTold = 4

// tell reports whether a boot at an address is to be logged. The caller holds mu.
func (b *bootFiles) tell(addr netip.Addr) bool {
	minute := b.clock() / 60
	if minute != b.minute || len(b.told) >= mostBootFiles {
		b.minute = minute
		clear(b.told)
	}
	b.told[addr]++
	return b.told[addr] <= mostTold
}

// tellOfBoot logs who boots.
func (x *Exports) tellOfBoot(b *Boot, key fetchKey, mac string, was netip.Addr) {
	log := x.log.With(zap.String("image", b.Image), zap.String("version", b.Version), zap.Stringer("address", key.addr), zap.String("serial", key.id.Serial), zap.String("mac", mac))
	log.Info("a node fetches boot files", zap.String("node", MemberOf(b.Node, key.addr).Key))
	if was.IsValid() {
		log.Warn("a serial number that was at another address before: the node has got another address, or two machines say that they are it; files of its own go to the address that the inventory has (rootnfsd node set --address)", zap.Stringer("before", was))
	}
	if b.Elsewhere {
		log.Warn("a node fetches boot files from an address that the inventory has for another one: it goes without a host name and files of its own (rootnfsd node set)")
	}
}

// CommandLineGiven notes that the node was given a command line that names the version: when it mounts
// that, it is because it was promised.
func (b *Boot) CommandLineGiven() {
	b.Confirmed()
	nd := b.exports.nodes.get(b.key.addr)
	for nd != nil {
		old := nd.netboot.Load()
		if old == nil || old.Named || old.Digest != b.Digest {
			return
		}
		named := *old
		named.Named = true
		if nd.netboot.CompareAndSwap(old, &named) {
			b.exports.nodes.dirty.Store(true)
			return
		}
	}
}

// booting returns the node that fetches boot files from an address and says that it is id, and whether the address is another
// node's. Who says nothing that is known is the one whose address, or else whose MAC address it is.
func (inv *Inventory) booting(addr netip.Addr, id BootID, macs []string) (e *Entry, elsewhere bool) {
	at := inv.At(addr)
	switch e := inv.saying(id); {
	case e != nil:
		return e, at != nil && at != e
	case at != nil && at.contradicts(id):
		return nil, true
	case at != nil:
		return at, false
	}
	for _, mac := range macs {
		if e := inv.saying(BootID{MAC: mac}); e != nil {
			return e, false
		}
	}
	return nil, false
}

// imageFor returns the image that a node boots, and its entry there if it has one: the image that knows what it says it is, else
// the one that knows its address, else the first one.
func (t *table) imageFor(addr netip.Addr, id BootID, macs []string) (*imageView, *Entry) {
	for _, img := range t.images {
		if e := img.inventory.saying(id); e != nil {
			return img, e
		}
	}
	for _, img := range t.images {
		if e, _ := img.inventory.booting(addr, id, macs); e != nil {
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

// of returns the entry of a node that was seen, or nil: by its address or, where nobody has named
// that, by what it said when it fetched boot files. A node that was given addresses is where these are: somebody else can say that it is it.
func (inv *Inventory) of(n *Node) *Entry {
	if e := inv.At(n.Addr); e != nil {
		return e
	}
	if e := inv.claimed(n); e != nil && len(e.Addresses) == 0 {
		return e
	}
	return nil
}

// claimed returns the entry of the node that one which was seen says that it is, or nil.
func (inv *Inventory) claimed(n *Node) *Entry {
	if n.Netboot == nil {
		return nil
	}
	return inv.saying(BootID{n.Netboot.Serial, n.Netboot.MAC})
}

// Netboot is what a node was given when it last fetched boot files.
type Netboot struct {
	Serial  string `json:"serial,omitempty"` // as it says
	MAC     string `json:"mac,omitempty"`    // as it says or, if it does not, as the kernel knows it
	SaidMAC bool   `json:"said_mac,omitempty"`
	Ref
	At time.Time `json:"at"` // when it began
	// Since is when it first fetched those of this version without having mounted it since.
	Since time.Time `json:"since"`
	// Named is set if it was given a command line, which names the version.
	Named bool `json:"command_line,omitempty"`
}

// fetched is a node's Netboot while the server runs.
type fetched struct {
	image string
	Netboot
}

// said is what the node said of itself.
func (f *fetched) said() BootID {
	id := BootID{Serial: f.Serial}
	if f.SaidMAC {
		id.MAC = f.MAC
	}
	return id
}

// netbooted notes what a node is given that fetches boot files.
func (n *nodes) netbooted(addr netip.Addr, f fetched) {
	nd, _ := n.known(addr)
	f.Since = f.At
	if old := nd.netboot.Load(); old != nil && old.image == f.image && old.Digest == f.Digest && !nd.mountedSince(old.Since) {
		f.Since = old.Since
	}
	nd.netboot.Store(&f)
	n.dirty.Store(true)
}

// mountedSince reports whether the node has mounted any version at some time or later.
func (nd *node) mountedSince(at time.Time) bool {
	return slices.ContainsFunc(*nd.uses.Load(), func(u *use) bool { return u.mounted.Load() >= seconds(at) })
}

// machineSeen is what the node at an address last said of itself, or showed.
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

// booting returns what the node said when it fetched boot files not long before the time now, or nil.
func (nd *node) booting(now int64) *fetched {
	if nd == nil {
		return nil
	}
	if f := nd.netboot.Load(); f != nil && now-seconds(f.At) < 2*bootFilesMost {
		return f
	}
	return nil
}

// wasGiven reports whether the node's command line names a version because this server wrote it.
func (nd *node) wasGiven(v *version) bool {
	f := nd.netboot.Load()
	return f != nil && f.Named && f.image == v.image.name && f.Digest == v.digest
}

// bootedOtherwise notes that the node booted without boot files of this server: it may be another machine than the one that fetched
// the last ones.
func (nd *node) bootedOtherwise(v *version, now int64) {
	if nd.netboot.Load() != nil && nd.booting(now) == nil && !nd.wasGiven(v) {
		nd.netboot.Store(nil)
	}
}

// restoreBoots takes up the boots that a server before this one began.
func (x *Exports) restoreBoots(t *table) {
	b := &x.bootFiles
	b.mu.Lock()
	defer b.mu.Unlock()
	now, wall := b.clock(), x.nodes.now.Load()
	for _, nd := range x.nodes.all() {
		saved := nd.netboot.Load()
		if saved == nil {
			continue
		}
		age := max(0, wall-seconds(saved.At)) // the clock may have been ahead
		if age >= bootFilesMost || nd.mountedSince(saved.At) {
			continue
		}
		for _, img := range t.images {
			if img.name == saved.image {
				b.add(&fetching{key: fetchKey{nd.addr, saved.said()}, image: img.id, ref: saved.Ref, first: now - age, last: now, late: saved.Named, confirmed: true})
			}
		}
	}
}
