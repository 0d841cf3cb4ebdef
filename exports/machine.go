package exports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// machines are the network cards that were seen to be the nodes of an image, by the nodes' names. What is a node's alone
// goes to no other machine, though an address changes hands by DHCP: the first one that is a node is it from then on. A
// node has as many as it has addresses; a MAC address that an operator has said is the first of them.
type machines struct {
	path   string
	change atomic.Uint64 // counts changes, under mu; who a peer is is found out anew after one

	mu     sync.Mutex // guards what follows
	byName map[string][]string
	owner  map[string]string // of a MAC address: the name
	broken error             // why the file cannot be read: nobody can tell who is who

	saving sync.Mutex // guards saved
	saved  uint64     // the change that is on the disk
}

const (
	machinesFile   = "machines.json"
	machinesFormat = 1
)

// machinesOnDisk is what machines.json holds.
type machinesOnDisk struct {
	Format   int                 `json:"format"`
	Machines map[string][]string `json:"machines"`
}

// load reads what was learnt.
func (m *machines) load(s *State, log *zap.Logger) {
	m.path = filepath.Join(s.dir, machinesFile)
	m.byName, m.owner = map[string][]string{}, map[string]string{}
	disk, _, err := readState(s, machinesFile, decodeMachines)
	if err != nil {
		m.broken = fmt.Errorf("%w; restore it from a backup, or delete it and start the server anew: then the next machine with the address of a node is that node", err)
		log.Error("nodes get no files of their own, and those with a name no homes, unless their MAC addresses were said", zap.Error(m.broken))
		return
	}
	for name, macs := range disk.Machines {
		m.byName[name] = macs
		for _, mac := range macs {
			m.owner[mac] = name
		}
	}
}

func decodeMachines(from io.Reader) (disk machinesOnDisk, err error) {
	err = json.NewDecoder(from).Decode(&disk)
	if err == nil && disk.Format != machinesFormat {
		err = fmt.Errorf("format %d is not known to this version of rootnfsd, which writes format %d", disk.Format, machinesFormat)
	}
	return disk, err
}

// errStranger is the error for a machine that is not the node whose address it has.
var errStranger = errors.New("another machine has the address of the node")

// standing is what is known of a machine that has the address of a node.
type standing int

const (
	unseen   standing = iota // the kernel knows no MAC address there
	fresh                    // it may be the node: no other machine is known to be
	familiar                 // it is the node
	stranger                 // it is not
)

// standing tells what the machine is that has one of the MAC addresses and the address of the node with an entry.
func (m *machines) standing(e *Entry, macs []string) standing {
	if len(macs) == 0 {
		return unseen
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.judge(e, macs)
}

// judge is standing for who holds mu.
func (m *machines) judge(e *Entry, macs []string) standing {
	if m.broken != nil && e.MAC == "" {
		return stranger
	}
	known := m.known(e)
	switch {
	case slices.ContainsFunc(macs, func(mac string) bool { return slices.Contains(known, mac) }):
		return familiar
	case len(known) >= max(1, len(e.Addresses)):
		return stranger
	case slices.ContainsFunc(macs, func(mac string) bool { return m.owner[mac] != "" && m.owner[mac] != e.Name }):
		return stranger
	}
	return fresh
}

// known returns the MAC addresses of a node, as many as it has addresses. The caller holds mu.
func (m *machines) known(e *Entry) []string {
	known := m.byName[e.Name]
	if e.MAC != "" {
		known = append([]string{e.MAC}, slices.DeleteFunc(slices.Clone(known), func(mac string) bool { return mac == e.MAC })...)
	}
	return known[:min(len(known), max(1, len(e.Addresses)))]
}

// first returns the MAC address that a node should have, for messages; empty if none is known.
func (m *machines) first(e *Entry) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.known(e); len(known) > 0 {
		return known[0]
	}
	return ""
}

// learn notes that a machine is the node with an entry, and returns when that is on the disk. The error is errStranger
// where another one was faster.
func (m *machines) learn(e *Entry, mac string) error {
	m.mu.Lock()
	switch m.judge(e, []string{mac}) {
	case stranger:
		m.mu.Unlock()
		return errStranger
	case fresh:
		m.byName[e.Name] = append(slices.Clone(m.byName[e.Name]), mac)
		m.owner[mac] = e.Name
		m.change.Add(1)
	}
	mine := m.change.Load()
	m.mu.Unlock()
	return m.save(mine)
}

// save sees to it that a change is on the disk. Those that come at once are written at once.
func (m *machines) save(change uint64) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if m.saved >= change {
		return nil
	}
	m.mu.Lock()
	disk, upto := machinesOnDisk{machinesFormat, maps.Clone(m.byName)}, m.change.Load()
	m.mu.Unlock()
	if err := replaceJSON(m.path, disk); err != nil {
		return err
	}
	m.saved = upto
	return nil
}

// keep forgets what an inventory that was replaced makes void: the machines of nodes that have no name any more, for whoever
// gets the name next is another node, and those in whose place an operator has said another.
func (m *machines) keep(inv *Inventory, log *zap.Logger) {
	m.mu.Lock()
	before := m.change.Load()
	for name, macs := range m.byName {
		var kept []string
		if e := inv.Named(name); e != nil {
			kept = slices.DeleteFunc(slices.Clone(m.known(e)), func(mac string) bool { return !slices.Contains(macs, mac) })
		}
		if len(kept) == len(macs) {
			continue
		}
		m.change.Add(1)
		for _, mac := range macs {
			delete(m.owner, mac)
		}
		for _, mac := range kept {
			m.owner[mac] = name
		}
		if m.byName[name] = kept; len(kept) == 0 {
			delete(m.byName, name)
		}
	}
	mine := m.change.Load()
	m.mu.Unlock()
	if mine == before {
		return
	}
	if err := m.save(mine); err != nil {
		log.Error("cannot save which machines are no nodes any more", zap.Error(err))
	}
}

// identity is who a peer is to an image: the node whose address it has, if that has a name, and whether it is another machine than that.
type identity struct {
	entry    *Entry
	standing standing
}

// identities are who a peer is to all images of a table, until the table or what is known of machines changes.
type identities struct {
	table    *table
	changes  uint64     // of machines, of all images
	byImage  []identity // as images are in the table
	homeless bool       // it is a stranger to each image that has a node there
}

// identify returns who p is. Where nothing has changed it allocates nothing and takes no lock.
func (x *Exports) identify(p *Peer, t *table) *identities {
	var changes uint64
	for _, img := range t.images {
		changes += img.machines.change.Load()
	}
	if known := p.identities.Load(); known != nil && known.table == t && known.changes == changes {
		return known
	}
	ids := &identities{table: t, changes: changes, byImage: make([]identity, len(t.images))}
	named, welcome := false, false
	for i, img := range t.images {
		e := img.inventory.entryOf(p)
		if e == nil {
			continue
		}
		is := identity{e, img.machines.standing(e, p.macs())}
		ids.byImage[i] = is
		named, welcome = true, welcome || is.standing != stranger
	}
	ids.homeless = named && !welcome
	p.identities.Store(ids)
	return ids
}

// in returns who the peer is to one image.
func (ids *identities) in(img *image) identity {
	for i, view := range ids.table.images {
		if view.image == img {
			return ids.byImage[i]
		}
	}
	return identity{}
}

// entryOf returns the entry of the node that p is, or nil: that of its address or, for a node that was given none, that of the
// MAC address that the kernel sees.
func (inv *Inventory) entryOf(p *Peer) *Entry {
	if e := inv.At(p.addr); e != nil {
		return e
	}
	if len(inv.byMAC) == 0 {
		return nil
	}
	for _, mac := range p.macs() {
		if i, ok := inv.byMAC[mac]; ok && len(inv.Entries[i].Addresses) == 0 {
			return &inv.Entries[i]
		}
	}
	return nil
}

// admit decides whether p, which mounts, is the node with an entry, and notes it if it is the first machine that is. The error is
// errStranger, or why that cannot be noted.
func (x *Exports) admit(p *Peer, img *imageView, is identity) error {
	if x.contradicts(p, img, is) {
		return errStranger
	}
	switch is.standing {
	case stranger:
		return errStranger
	case fresh:
		if macs := p.macs(); len(macs) == 1 { // else nobody knows which of them it is
			return img.machines.learn(is.entry, macs[0])
		}
	}
	return nil
}

// contradicts reports whether what p said when it fetched boot files is not what operators have said of the node that it may be. Where
// the kernel sees the node's card that counts for nothing: every program on a node can ask for boot files.
func (x *Exports) contradicts(p *Peer, img *imageView, is identity) bool {
	if is.standing == familiar {
		return false
	}
	nd := p.node.Load()
	if nd == nil {
		nd = x.nodes.get(p.addr)
	}
	f := nd.booting(x.nodes.now.Load())
	if f == nil || f.image != img.name {
		return false
	}
	other := img.inventory.saying(f.said())
	return other != nil && other.Name != is.entry.Name || is.entry.contradicts(f.said())
}

// contradicts reports whether a node that says that it is id is not the one with the entry.
func (e *Entry) contradicts(id BootID) bool {
	return e.Serial != "" && id.Serial != "" && id.Serial != e.Serial || e.MAC != "" && id.MAC != "" && id.MAC != e.MAC
}

// homeless says why p, which mounts a home, gets none, if so: another machine has the address of a node with a name.
func (x *Exports) homeless(p *Peer, t *table) (why string) {
	for i, is := range x.identify(p, t).byImage {
		if is.entry == nil {
			continue
		}
		img := t.images[i]
		if err := x.admit(p, img, is); !errors.Is(err, errStranger) {
			if err != nil {
				x.log.Error("cannot save which machine a node is", zap.String("node", is.entry.Name), zap.Error(err))
			}
			return ""
		}
		why = img.machines.strange(is.entry, p)
	}
	return why
}

// strange says what is the matter with a stranger, and what to do.
func (m *machines) strange(e *Entry, p *Peer) string {
	if m.broken != nil {
		return m.broken.Error()
	}
	if seen := p.macs(); len(seen) > 0 && m.first(e) != "" && m.first(e) != seen[0] {
		return fmt.Sprintf("the machine at the address of %s is %s, not %s: give each its own address or, if it is the node, rootnfsd node set %[1]s --mac %[2]s", e.Name, seen[0], m.first(e))
	}
	return fmt.Sprintf("the machine at the address of %s said that it is another one, or is known as another node: give each its own address, or say what is so by rootnfsd node set", e.Name)
}
