package layer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sort"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Tree is a layer over a base tree. It never changes, and what it tells of objects, names and its own
// content it tells from memory, without a lock or an allocation.
//
// The objects of the base keep their NodeIDs and cookies; those of the layer are
// numbered from behind the base's last. A name that is replaced stays where it is in its
// directory, one that is new comes behind the others.
type Tree struct {
	base    fs.Tree
	spanner fs.Spanner // base, or nil if it is none
	fsid    uint64
	bytes   uint64    // of content
	orphans uint64    // objects of the base that have no name left
	first   fs.NodeID // the layer's objects are those from here on
	own     []object
	changed map[fs.NodeID]*object // objects of the base with other attributes
	hidden  fs.Error              // what own objects answer to who may not see them; else 0
}

var (
	_ fs.Spanner = (*Tree)(nil)
	_ fs.Warmer  = (*Tree)(nil)
)

// object is a file or directory that a layer made or changed.
type object struct {
	attr    fs.Attr
	content string
	dir     *directory // nil for what is none
}

// directory is what a layer did to a directory.
type directory struct {
	parent   fs.NodeID            // of one that the layer made; 0 for one of the base
	names    map[string]fs.NodeID // the layer's
	replaced []fs.DirEntry        // of the base's entries, by cookie
	added    []fs.DirEntry        // behind them, with "." and ".." if there are none
	last     uint64               // the base's last cookie
}

// fsidOf is the identity of a layer over a base.
func fsidOf(base fs.Tree, id uint64) uint64 {
	b := []byte("rootnfsd layer: ")
	b = binary.BigEndian.AppendUint64(b, base.FSID())
	b = binary.BigEndian.AppendUint64(b, id)
	sum := sha256.Sum256(b)
	return max(1, binary.BigEndian.Uint64(sum[:]))
}

func newTree(base fs.Tree, id uint64) *Tree {
	t := &Tree{base: base, fsid: fsidOf(base, id), first: fs.NodeID(base.Statfs().Files) + 1, changed: map[fs.NodeID]*object{}}
	t.spanner, _ = base.(fs.Spanner)
	return t
}

// Bare returns what a layer leaves to those who may not see it, or if it is lost: the
// base with the identity that the layer has, as a client takes another one for a
// mount. The layer's own objects, which such a client may know, are err.
func Bare(base fs.Tree, id uint64, err fs.Error) *Tree {
	t := newTree(base, id)
	t.hidden = err
	return t
}

// Owns reports whether an object is, or may once have been, the layer's and not the base's.
func (t *Tree) Owns(id fs.NodeID) bool { return id >= t.first }

// FSID implements fs.Tree. It follows from those of base and layer.
func (t *Tree) FSID() uint64 { return t.fsid }

// Root implements fs.Tree.
func (t *Tree) Root() fs.NodeID { return t.base.Root() }

// object returns an object of the layer's own, which the caller knows that id means.
func (t *Tree) object(id fs.NodeID) (*object, error) {
	switch i := uint64(id - t.first); {
	case t.hidden != 0:
		return nil, t.hidden
	case i >= uint64(len(t.own)):
		return nil, fs.ErrStale
	default:
		return &t.own[i], nil
	}
}

// Getattr implements fs.Tree.
func (t *Tree) Getattr(id fs.NodeID, a *fs.Attr) error {
	if t.Owns(id) {
		o, err := t.object(id)
		if err == nil {
			*a = o.attr
		}
		return err
	}
	if err := t.base.Getattr(id, a); err != nil {
		return err
	}
	a.FSID = t.fsid
	if o := t.changed[id]; o != nil {
		a.Nlink, a.Size = o.attr.Nlink, o.attr.Size
	}
	return nil
}

// directory returns what the layer did to a directory; nil if that is the base's as it was.
func (t *Tree) directory(id fs.NodeID) (*object, error) {
	if !t.Owns(id) {
		if o := t.changed[id]; o != nil && o.dir != nil {
			return o, nil
		}
		return nil, nil
	}
	o, err := t.object(id)
	if err == nil && o.dir == nil {
		err = fs.ErrNotDir
	}
	return o, err
}

// Lookup implements fs.Tree.
func (t *Tree) Lookup(c *fs.Cred, dir fs.NodeID, name fs.Name) (fs.NodeID, error) {
	o, err := t.directory(dir)
	if err != nil {
		return 0, err
	}
	if o == nil {
		return t.base.Lookup(c, dir, name)
	}
	if fs.Granted(&o.attr, c)&fs.MayExec == 0 {
		return 0, fs.ErrAccess
	}
	if id, ok := o.dir.names[string(name)]; ok {
		return id, nil
	}
	switch {
	case o.dir.parent == 0:
		return t.base.Lookup(c, dir, name)
	case name.IsDot():
		return dir, nil
	case name.IsDotDot():
		return o.dir.parent, nil
	}
	return 0, fs.ErrNotExist
}

// Readlink implements fs.Tree.
func (t *Tree) Readlink(id fs.NodeID) ([]byte, error) {
	if !t.Owns(id) {
		return t.base.Readlink(id)
	}
	if _, err := t.object(id); err != nil {
		return nil, err
	}
	return nil, fs.ErrInvalid
}

// ReadDir implements fs.Tree.
func (t *Tree) ReadDir(c *fs.Cred, dir fs.NodeID, cookie uint64, entries []fs.DirEntry) (n int, eof bool, err error) {
	o, err := t.directory(dir)
	if err != nil {
		return 0, false, err
	}
	if o == nil {
		return t.base.ReadDir(c, dir, cookie, entries)
	}
	if fs.Granted(&o.attr, c)&fs.MayRead == 0 {
		return 0, false, fs.ErrAccess
	}
	d := o.dir
	if cookie <= d.last && d.parent == 0 {
		n, eof, err = t.base.ReadDir(c, dir, cookie, entries)
		if err != nil {
			return 0, false, err
		}
		d.replace(entries[:n])
		if !eof {
			return n, false, nil
		}
		cookie = d.last
	}
	i := cookie - d.last // of the first in added that is wanted
	if i > uint64(len(d.added)) {
		return 0, false, fs.ErrInvalid
	}
	k := copy(entries[n:], d.added[i:])
	return n + k, int(i)+k == len(d.added), nil
}

// replace puts the layer's objects into entries that the base filled in.
func (d *directory) replace(entries []fs.DirEntry) {
	for i := range d.replaced {
		r := &d.replaced[i]
		at := sort.Search(len(entries), func(i int) bool { return entries[i].Cookie >= r.Cookie })
		if at < len(entries) && entries[at].Cookie == r.Cookie {
			e := &entries[at]
			e.ID, e.FileID, e.Kind = r.ID, r.FileID, r.Kind
		}
	}
}

// Read implements fs.Tree.
func (t *Tree) Read(c *fs.Cred, id fs.NodeID, off uint64, p []byte, nowait bool) (n int, eof bool, err error) {
	if !t.Owns(id) {
		return t.base.Read(c, id, off, p, nowait)
	}
	o, err := t.readable(c, id)
	if err != nil {
		return 0, false, err
	}
	size := uint64(len(o.content))
	off = min(off, size)
	n = copy(p, o.content[off:])
	return n, off+uint64(n) == size, nil
}

// readable returns a file of the layer's own for c to read.
func (t *Tree) readable(c *fs.Cred, id fs.NodeID) (*object, error) {
	o, err := t.object(id)
	switch {
	case err != nil:
		return nil, err
	case o.dir != nil:
		return nil, fs.ErrIsDir
	case !fs.CanRead(&o.attr, c):
		return nil, fs.ErrAccess
	}
	return o, nil
}

// Spans implements fs.Spanner. The content of the layer's own files lies in no
// file, and if the base is no fs.Spanner, neither does that of the others.
func (t *Tree) Spans(c *fs.Cred, id fs.NodeID, off uint64, count uint32, spans []fs.Span, nowait bool) (n int, eof bool, err error) {
	if t.spanner != nil && !t.Owns(id) {
		return t.spanner.Spans(c, id, off, count, spans, nowait)
	}
	if _, _, err := t.Read(c, id, off, nil, nowait); err != nil {
		return 0, false, err
	}
	return 0, false, fs.ErrNotSupported
}

// Warm implements fs.Warmer. Only the base has something that is not in memory.
func (t *Tree) Warm(ctx context.Context, ranges []fs.Range, progress func(done, total uint64)) (uint64, error) {
	if w, ok := t.base.(fs.Warmer); ok {
		return w.Warm(ctx, ranges, progress)
	}
	return 0, ctx.Err()
}

// Statfs implements fs.Tree.
func (t *Tree) Statfs() fs.Statfs {
	s := t.base.Statfs()
	s.Bytes += t.bytes
	s.Files += uint64(len(t.own)) - t.orphans
	return s
}
