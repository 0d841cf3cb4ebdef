package exports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/fs"
)

// draft is a draft in one table.
type draft struct {
	Draft
	version *version // what stands for it in the record of nodes
	tree    *writable
}

// draftTrees are the drafts of an image, as trees that nodes write to.
type draftTrees struct {
	*Drafts
	Homes // says only who callers are: root is root
	open  func(dir string) (fs.WritableTree, error)
}

var _ keeper = (*draftTrees)(nil)

func newDraftTrees(state *State, dir string, open func(dir string) (fs.WritableTree, error)) *draftTrees {
	return &draftTrees{Drafts: OpenDrafts(state, dir), Homes: Homes{Squash: SquashNone, AnonUID: fs.Nobody, AnonGID: fs.Nobody}, open: open}
}

func (d *draftTrees) there() error                 { return nil }
func (d *draftTrees) moved(*writable, os.FileInfo) {}

func (d *draftTrees) make(dir string) error {
	err := d.settled(path.Base(dir))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: there is no tree %s: rootnfsd draft --abandon %s", fs.ErrStale, dir, path.Base(dir))
	}
	return err
}

func (d *draftTrees) openTree(dir string) (fs.WritableTree, error) {
	if d.open == nil {
		return nil, fmt.Errorf("%w: this server serves no drafts", fs.ErrAccess)
	}
	tree, err := d.open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the draft %s: %w", dir, err)
	}
	return tree, nil
}

// draftsOf returns the drafts of an image for a table, taking over what is open of those that there were.
func (img *image) draftsOf(r *Rollout, old *imageView) []*draft {
	var list []*draft
	for _, d := range r.Drafts {
		now := &draft{Draft: d}
		for _, was := range old.drafts {
			if was.Digest == d.Digest {
				now.version, now.tree = was.version, was.tree
			}
		}
		if now.version == nil {
			id := binary.BigEndian.Uint64(d.Digest[:8])
			now.tree = &writable{of: img.drafts, kind: kindDraft, id: id, key: img.key, dir: img.drafts.Tree(d.Version)}
			now.version = &version{image: img, name: d.Version, digest: d.Digest, treeID: id, draft: now.tree}
		}
		list = append(list, now)
	}
	return list
}

// draftNamed returns the draft that becomes the version of a name, or nil.
func (v *imageView) draftNamed(name string) *draft {
	for _, d := range v.drafts {
		if d.Version == name {
			return d
		}
	}
	return nil
}

// draftWith returns the draft that a version stands for, or nil.
func (v *imageView) draftWith(ver *version) *draft {
	for _, d := range v.drafts {
		if d.version == ver {
			return d
		}
	}
	return nil
}

// draftFor returns the draft that p boots, or nil.
func (x *Exports) draftFor(v *imageView, p *Peer) *draft {
	for _, d := range v.drafts {
		if d.held() && x.ownsDraft(v, d, p) {
			return d
		}
	}
	return nil
}

// ownsDraft reports whether p is at an address of the node that has a draft, and no other machine is known to have that.
func (x *Exports) ownsDraft(v *imageView, d *draft, p *Peer) bool {
	e := v.inventory.At(p.addr)
	if e == nil || e.Name != d.Node || p.ambiguous() {
		return false
	}
	// A connection stays with the machine that made it, so that need not be looked up for each call.
	if c := p.machine.Load(); c != nil && c.entry == e {
		return !c.other
	}
	want, seen := x.otherMachine(v.image, p.nodes.known(p.addr), e)
	p.machine.Store(&machineCheck{entry: e, other: seen != ""})
	if seen != "" {
		x.log.Warn("another machine has the address of a node with a draft, and does not get that: give each its own address, or say what the node's MAC address is now (rootnfsd node set --mac)",
			zap.String("draft", d.Version), zap.String("node", d.Node), zap.Stringer("address", p.addr), zap.String("mac", want), zap.String("seen", seen))
		p.noteStranger(want, seen)
	}
	return seen == ""
}

// machineCheck is whether another machine than the node with an entry was at the other end of a connection.
type machineCheck struct {
	entry *Entry
	other bool
}

// checkDraft returns the draft that a handle names, if p may use it.
func (x *Exports) checkDraft(p *Peer, handle []byte, h *homeHandle) (*draft, error) {
	t := x.table.Load()
	d := t.drafts[h.home]
	switch {
	case d == nil && !t.signed(handle), d != nil && !d.version.image.key.signed(handle):
		return nil, fs.ErrBadHandle
	case !p.allowed:
		return nil, fs.ErrAccess
	case d == nil:
		return nil, fs.ErrStale // it was sealed, or abandoned
	case !p.reserved, !x.ownsDraft(t.imageOf(d.version.image.id), d, p):
		return nil, fs.ErrAccess
	case d.Sealing:
		return nil, fs.ErrWouldBlock
	}
	return d, nil
}

// signed reports whether the tag of a handle was made with the key of an image.
func (t *table) signed(handle []byte) bool {
	for _, img := range t.images {
		if img.key.signed(handle) {
			return true
		}
	}
	return false
}

// mountDraft is mountVersion for a path that leads to a draft.
func (x *Exports) mountDraft(p *Peer, dir string, to *target, from Caller, try int, refuse refusal) ([]byte, *target, error) {
	failed := func(handle []byte, err error) ([]byte, *target, error) { return handle, nil, err }
	switch {
	case from.Datagram:
		return failed(refuse(fs.ErrAccess, "drafts are mounted over TCP: use mountproto=tcp"))
	case !p.reserved:
		return failed(refuse(fs.ErrAccess, "the node has the draft %s, and the call is from a port that any user of the node could use: mount without noresvport", to.version.name))
	}
	in := to.version.draft
	tree, err := in.Mount(true)
	var object fs.Handle
	if err == nil {
		object, err = walkHome(tree, to.rest)
	}
	switch kind := fs.KindOf(err); kind {
	case 0:
	case fs.ErrNotExist:
		return failed(refuse(kind, "the draft %s has no such directory", to.version.name))
	case fs.ErrNotDir:
		return failed(refuse(kind, "only a directory can be mounted, and symlinks are not followed"))
	default:
		return failed(refuse(kind, "the draft %s: %v", to.version.name, err))
	}
	x.noteMount(p, to, dir, from, 0, try)
	o := HomeObject{Tree: tree, in: in}
	return o.AppendHandle(nil, object), to, nil
}

// asker stands for who asks from an address for boot files.
func (x *Exports) asker(addr netip.Addr) *Peer {
	return &Peer{addr: addr, allowed: true, nodes: &x.nodes}
}

// draftAt returns the draft whose boot files go to the node with an entry, which asks from an address, or nil. It is what a mount from there
// will get.
func (x *Exports) draftAt(v *imageView, e *Entry, addr netip.Addr) *draft {
	if e == nil || v.inventory.At(addr) != e {
		return nil
	}
	return x.draftFor(v, x.asker(addr))
}
