package exports

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootnfsd/rootnfsd/fs"
)

// table is all that is served at one moment. It never changes: a promote makes
// a new one and swaps a pointer, so that a call sees the old state or the new,
// and needs no lock to see it.
type table struct {
	images []*imageView
	trees  map[treeKey]*version
	drafts map[uint64]*draft // by what handles say of them
}

// imageOf returns the image with an export id, or nil.
func (t *table) imageOf(export uint32) *imageView {
	for _, img := range t.images {
		if img.id == export {
			return img
		}
	}
	return nil
}

// named returns the version of an image by its name, or nil.
func (t *table) named(img *image, name string) *version {
	return t.imageOf(img.id).named(name)
}

// treeKey finds a version by what a handle says of it.
type treeKey struct {
	export uint32
	tree   uint64
}

// image is what does not change about an image while the server runs.
type image struct {
	name    string
	paths   []string // the store's directory as an absolute path, and where its symlinks lead
	id      uint32
	key     sipKey
	state   *State
	store   Store
	files   NodeFiles // nil if nodes have none
	anyPort bool      // see Image
	drafts  *draftTrees

	layerBytes atomic.Int64 // that are kept of layers, about

	machines    machines
	journal     journal
	trialsSaved time.Time // used by watchRollouts alone

	booting   sync.Mutex // guards the making of boot logs, and initramfs
	initramfs bool       // nodes of this image boot by an initramfs that tells (Caller.Booting)
}

// imageView is an image in one table.
type imageView struct {
	*image
	rollout   Rollout
	inventory *Inventory
	unread    error // why the inventory is an old one, if it is
	versions  []*version
	drafts    []*draft
	promoted  *version // what a mount of the bare name gets, unless the node is promised another; nil if nothing is
	damaged   bool     // there is a version that cannot be read
}

// holding returns the version that a Ref means, or what stands for a draft, or nil. The digest decides: a version that
// was sealed again since has the content under another name.
func (v *imageView) holding(ref Ref) (found *version) {
	for _, ver := range v.versions {
		if ver.digest == ref.Digest && (found == nil || ver.name == ref.Version) {
			found = ver
		}
	}
	if found == nil {
		for _, d := range v.drafts {
			if d.Digest == ref.Digest && !d.Sealing {
				return d.version
			}
		}
	}
	return found
}

// named returns the version of that name, or nil.
func (v *imageView) named(name string) *version {
	for _, ver := range v.versions {
		if ver.name == name {
			return ver
		}
	}
	return nil
}

// version is a sealed version that is served. It is opened when somebody first
// uses it: a store may hold many that nobody does. One version object stands
// for one digest through all tables, so that it is opened once.
type version struct {
	image  *image
	name   string
	digest fs.Digest
	treeID uint64
	open   func() (fs.Tree, error)
	layout fs.Digest // where open finds the content; used by the making of tables alone

	tree    atomic.Pointer[openTree]
	opening sync.Mutex // one opens, the others wait for it

	boot atomic.Pointer[bootLog] // what nodes read that boot it; nil if none did

	// draft is the tree of one that is no sealed version but a draft; its other fields are then of no use.
	draft *writable
}

// openTree boxes the interface for atomic.Pointer.
type openTree struct{ fs.Tree }

// bootTree returns the tree to read boot files from.
func (v *version) bootTree() (fs.Tree, error) {
	if v.draft == nil {
		return v.Tree()
	}
	tree, err := v.draft.Mount(true)
	if err != nil {
		return nil, err
	}
	return NewReading(tree), nil
}

// Tree returns the opened tree. After the first time it is one atomic load.
func (v *version) Tree() (fs.Tree, error) {
	if t := v.tree.Load(); t != nil {
		return t.Tree, nil
	}
	v.opening.Lock()
	defer v.opening.Unlock()
	if t := v.tree.Load(); t != nil {
		return t.Tree, nil
	}
	return v.load()
}

// load opens the tree. The caller holds opening.
func (v *version) load() (fs.Tree, error) {
	if v.open == nil {
		return nil, fs.ErrStale
	}
	t, err := v.open()
	if err == nil && t.FSID() != max(1, v.treeID) {
		err = fmt.Errorf("%w: it has the content of another version", fs.ErrIO)
	}
	if err != nil {
		return nil, fmt.Errorf("open version %s of %s: %w", v.name, v.image.name, err)
	}
	v.tree.Store(&openTree{t})
	return t, nil
}

// moveTo makes the version one whose content lies elsewhere now. Calls that are
// under way end with the tree that they have; what that holds is let go of after
// the last. If the new one cannot be opened, the old one goes on.
func (v *version) moveTo(layout fs.Digest, open func() (fs.Tree, error)) error {
	v.opening.Lock()
	defer v.opening.Unlock()
	v.layout, v.open = layout, open
	if v.tree.Load() == nil {
		return nil
	}
	_, err := v.load()
	return err
}

// retire lets go of the tree of a version that was removed, so that its memory
// and disk space come back when the last call that uses it is done.
func (v *version) retire() {
	v.opening.Lock()
	defer v.opening.Unlock()
	v.open = nil
	v.tree.Store(nil)
}

// allows reports whether an address may use what is exported.
func allows(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// DefaultAllow is who may mount unless the operator says otherwise: loopback,
// and the addresses that are private or of the local link (RFC 1918, RFC 3927,
// RFC 4193, RFC 4291).
func DefaultAllow() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("fc00::/7"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("::1/128"),
	}
}
