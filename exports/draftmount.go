package exports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

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

// draftHeldBy returns the draft that the node with an entry boots, or nil.
func (v *imageView) draftHeldBy(e *Entry) *draft {
	for _, d := range v.drafts {
		if e != nil && d.Node == e.Name && d.held() {
			return d
		}
	}
	return nil
}

// draftFor returns the draft that p gets by the name of the image or, if that is wanted, by its own, or nil. By its own name a node also gets one
// that it was released from: a command line that somebody wrote leads nowhere else.
func (x *Exports) draftFor(t *table, v *imageView, p *Peer, wanted string) *draft {
	d := v.draftHeldBy(v.inventory.At(p.addr))
	if wanted != "" {
		d = v.draftNamed(wanted)
	}
	if d == nil || d.Sealing || !x.givesDraft(t, d, p) {
		return nil
	}
	return d
}

// givesDraft reports whether p, which mounts, gets a draft: it may use that, and did not say that it is another node.
func (x *Exports) givesDraft(t *table, d *draft, p *Peer) bool {
	img := d.version.image
	return x.ownsDraft(t, d, p) && !x.contradicts(p, t.imageOf(img.id), x.identify(p, t).in(img))
}

// ownsDraft reports whether p is at an address of the node that has a draft, and no other machine is known to have that.
func (x *Exports) ownsDraft(t *table, d *draft, p *Peer) bool {
	is := x.identify(p, t).in(d.version.image)
	return is.entry != nil && is.entry.Name == d.Node && slices.Contains(is.entry.Addresses, p.addr) && !p.ambiguous() && is.standing != stranger
}

// sayNoDraft says that who mounts a version has the address of a node with a draft, and is another machine.
func (x *Exports) sayNoDraft(p *Peer, t *table, to *target) {
	e := to.image.inventory.At(p.addr)
	d := to.image.draftHeldBy(e)
	if d == nil || !to.mayBe(d.Ref) || x.givesDraft(t, d, p) || p.ambiguous() {
		return
	}
	why := to.image.machines.strange(e, p)
	x.log.Warn("another machine has the address of a node with a draft, and does not get that", zap.String("draft", d.Version), zap.String("node", d.Node), zap.Stringer("address", p.addr), zap.String("why", why))
	p.noteStranger(why)
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
	case !p.reserved, !x.ownsDraft(t, d, p):
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
func (x *Exports) mountDraft(t *table, p *Peer, dir string, to *target, from Caller, try int, refuse refusal) ([]byte, *target, error) {
	failed := func(handle []byte, err error) ([]byte, *target, error) { return handle, nil, err }
	switch {
	case from.Datagram:
		return failed(refuse(fs.ErrAccess, "drafts are mounted over TCP: use mountproto=tcp"))
	case !p.reserved:
		return failed(refuse(fs.ErrAccess, "the node has the draft %s, and the call is from a port that any user of the node could use: mount without noresvport", to.version.name))
	}
	if err := x.admit(p, to.image, x.identify(p, t).in(to.image.image)); err != nil {
		return failed(refuse(fs.ErrAccess, "the draft %s: %v", to.version.name, err))
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
