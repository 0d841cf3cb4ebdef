package exports

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// writable is one tree that nodes write to: a home, or a draft. There is one of these for each directory, for as long as it
// is used.
type writable struct {
	of   keeper
	kind byte // of its handles
	id   uint64
	key  sipKey // signs its handles
	dir  string

	opening sync.Mutex // one makes and opens it, the others wait for it
	open    atomic.Pointer[openDir]
	used    atomic.Bool // since homes were swept
}

// keeper is what a writable tree is one of: the homes, or the drafts of an image.
type keeper interface {
	// there reports what is wrong with the place that the directories lie in.
	there() error
	// make makes a directory that is not there.
	make(dir string) error
	// openTree opens the tree in a directory.
	openTree(dir string) (fs.WritableTree, error)
	// moved notes that to was opened in what is now its directory.
	moved(to *writable, info os.FileInfo)
	// squash changes c into who the caller is in the trees. An anonymous caller has not said who it is.
	squash(c *fs.Cred, anonymous bool)
}

// openDir is the tree that was opened, and the directory that it was then: an
// operator may put another in its place.
type openDir struct {
	fs.WritableTree
	info os.FileInfo
}

// Tree returns the tree of a directory that has been mounted at some time. After the
// first time it is one atomic load. It is fs.ErrStale if the directory was removed.
func (w *writable) Tree() (fs.WritableTree, error) {
	if !w.used.Load() {
		w.used.Store(true)
	}
	if o := w.open.Load(); o != nil {
		return o.WritableTree, nil
	}
	w.opening.Lock()
	defer w.opening.Unlock()
	return w.reopen()
}

// Mount returns the tree as it is now, making the directory if there is none.
func (w *writable) Mount(create bool) (fs.WritableTree, error) {
	w.opening.Lock()
	defer w.opening.Unlock()
	w.used.Store(true)
	if err := w.of.there(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(w.dir); create && errors.Is(err, os.ErrNotExist) {
		if err := w.of.make(w.dir); err != nil {
			return nil, err
		}
	}
	return w.reopen()
}

// reopen opens the tree if what is open is not what is there. The caller holds
// opening.
func (w *writable) reopen() (fs.WritableTree, error) {
	if err := w.of.there(); err != nil {
		return nil, err
	}
	info, err := os.Stat(w.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", fs.ErrStale, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrIO, err)
	}
	var a fs.Attr
	if o := w.open.Load(); o != nil && os.SameFile(o.info, info) && o.Getattr(o.Root(), &a) == nil {
		return o.WritableTree, nil
	}
	tree, err := w.of.openTree(w.dir)
	if err != nil {
		return nil, shortage(err)
	}
	w.open.Store(&openDir{tree, info})
	w.of.moved(w, info)
	return tree, nil
}

// shortage makes an error that will pass, for want of descriptors or memory, one of
// kind fs.ErrWouldBlock, which makes a client ask later.
func shortage(err error) error {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", fs.ErrWouldBlock, err)
		}
	}
	return err
}

// HomeObject is what a handle of a home or a draft names.
type HomeObject struct {
	Tree   fs.WritableTree
	Handle fs.Handle
	in     *writable
	part   *tallyPart // nil for homes
}

// AppendHandle appends the handle of another object of the same tree to b. It
// takes at most MaxHandle bytes.
func (o *HomeObject) AppendHandle(b []byte, h fs.Handle) []byte {
	return appendHomeHandle(b, o.in, o.Tree.FSID(), h)
}

// Squash changes c into who the caller is in the tree. It may change what Groups
// points to. An anonymous caller has not said who it is.
func (o *HomeObject) Squash(c *fs.Cred, anonymous bool) { o.in.of.squash(c, anonymous) }

// SameTree reports whether two objects are of one tree: a node may have a home and drafts, and nothing
// gets from one to the other but by what is read and written. A home that nobody used is forgotten, perhaps
// just before the second of them is looked up.
func (o *HomeObject) SameTree(other *HomeObject) bool { return o.in.dir == other.in.dir }

// NoteRead notes that so many bytes of the object are being read, for what is told of the node.
func (o *HomeObject) NoteRead(count uint32) {
	if o.part != nil {
		o.part.read(count)
	}
}

// ResolveHome is Resolve for a handle that IsHome is true of. It may wait for a
// disk. Its errors are those of CheckHome, fs.ErrStale where the home or draft is gone and
// fs.ErrIO where it cannot be opened.
func (x *Exports) ResolveHome(p *Peer, handle []byte, o *HomeObject) error {
	h, d, err := x.checkHome(p, handle)
	if err != nil {
		return err
	}
	var in *writable
	o.part = nil
	if d != nil {
		in = d.tree
		o.part, _ = p.touch(d.version)
	} else {
		in = x.homes.at(x.homes.dirOf(p))
	}
	tree, err := in.Tree()
	if err != nil {
		if d == nil {
			x.homes.forget(in)
		}
		return err
	}
	if tree.FSID() != h.fsid {
		return fs.ErrStale // it is on another file system now
	}
	o.Tree, o.Handle, o.in = tree, h.object, in
	return nil
}

// CheckHome reports whether p may use a handle that IsHome is true of, and does
// not wait. Errors: fs.ErrBadHandle for a handle that this server never made,
// fs.ErrAccess where it is that of another node's home or draft, or the address or the port
// of p may not use it, fs.ErrStale where it is of a draft that is no more, fs.ErrWouldBlock
// where it is of one that is being sealed.
func (x *Exports) CheckHome(p *Peer, handle []byte) error {
	_, _, err := x.checkHome(p, handle)
	return err
}

// checkHome is CheckHome, and returns the draft, if it is of one.
func (x *Exports) checkHome(p *Peer, handle []byte) (homeHandle, *draft, error) {
	h, ok := parseHomeHandle(handle)
	switch {
	case !ok:
		return h, nil, fs.ErrBadHandle
	case h.kind == kindDraft:
		d, err := x.checkDraft(p, handle, &h)
		return h, d, err
	case x.homes == nil:
		return h, nil, fs.ErrBadHandle
	case !p.allowed:
		return h, nil, fs.ErrAccess
	case !x.homes.signed(handle):
		return h, nil, fs.ErrBadHandle
	case !x.homes.trusts(p):
		return h, nil, fs.ErrAccess
	case h.home == p.homeID(x.homes.Shared):
		if !x.homes.Shared && x.identify(p, x.table.Load()).homeless {
			return h, nil, fs.ErrAccess
		}
		return h, nil, nil
	case x.homes.Shared:
		return h, nil, fs.ErrStale // made when each node had a home of its own
	}
	// nfsd says STALE to an address that an export is not for. But a Linux client
	// never uses an inode again that was stale once, and a node whose address has
	// changed may get it back.
	return h, nil, fs.ErrAccess
}
