package image

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// Aspects is a set of what may differ about an object.
type Aspects uint16

// What may differ. Attributes that follow from others, such as the size of a
// directory, are not among them: if nothing of this differs between two
// versions, they have the same digest.
const (
	ChangedType    Aspects = 1 << iota
	ChangedContent         // of a regular file
	ChangedMode
	ChangedOwner
	ChangedXattrs
	ChangedTarget // of a symlink
	ChangedDevice // the numbers of a device
	ChangedLinks  // which other names are hard links to it, or how many
	ChangedTimes
)

var aspectNames = [...]string{"type", "content", "mode", "owner", "xattrs", "target", "device", "links", "times"}

// Names lists the aspects in words.
func (a Aspects) Names() []string {
	var names []string
	for i, name := range aspectNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (a Aspects) String() string { return strings.Join(a.Names(), ", ") }

// Change is how two versions differ at a path.
type Change struct {
	Path          string
	What          Aspects // zero if only one of the versions has the path
	Before, After *Object // nil where there is none
}

// Object is what a version has at a path.
type Object struct {
	fs.Attr
	Target string // of a symlink
	Digest Digest // of the content of a regular file
	Xattrs []source.Xattr
}

// Diff calls do for every path at which the versions differ, a directory before
// what is in it, and that by the bytes of the names, until do returns an error.
// It goes through both indexes side by side, and never looks at content: files
// are told apart by their digests.
func Diff(before, after *Version, do func(*Change) error) (err error) {
	defer before.guard(debug.SetPanicOnFault(true), &err)
	defer runtime.KeepAlive(after)
	d := &differ{
		before: side{index: before.index, twin: make(map[fs.NodeID]fs.NodeID)},
		after:  side{index: after.index, twin: make(map[fs.NodeID]fs.NodeID)},
		do:     do,
	}
	return d.pair(nil, 1, 1)
}

// differ goes through two versions.
type differ struct {
	before, after side
	path          []byte // of what it is at; empty for the root
	do            func(*Change) error
}

// side is one of the versions.
type side struct {
	*index
	listed uint64 // directories
	// twin is, for an object that has several names, which object of the other
	// side has the first of them that both have.
	twin map[fs.NodeID]fs.NodeID
}

// pair compares the objects that have the same path, 0 standing for none, and
// what is in them.
func (d *differ) pair(name []byte, before, after fs.NodeID) error {
	parent := len(d.path)
	if name != nil {
		d.path = append(append(d.path, '/'), name...)
		defer func() { d.path = d.path[:parent] }()
	}
	b, err := d.before.object(before)
	if err != nil {
		return err
	}
	a, err := d.after.object(after)
	if err != nil {
		return err
	}
	if err := d.compare(before, after, b, a); err != nil {
		return err
	}
	if b == nil || b.kind() != fs.Directory {
		before = 0
	}
	if a == nil || a.kind() != fs.Directory {
		after = 0
	}
	if before == 0 && after == 0 {
		return nil
	}
	return d.contents(before, after)
}

// object returns the record of an object, nil for 0.
func (s *side) object(id fs.NodeID) (*inode, error) {
	if id == 0 {
		return nil, nil
	}
	n, err := s.inode(id)
	if err != nil {
		return nil, fs.ErrIO // the index names an object that it has not
	}
	return n, nil
}

// contents compares what is in two directories, 0 standing for none.
func (d *differ) contents(before, after fs.NodeID) error {
	b, err := d.before.list(before)
	if err != nil {
		return err
	}
	a, err := d.after.list(after)
	if err != nil {
		return err
	}
	for b.name != nil || a.name != nil {
		order := 0
		switch {
		case a.name == nil:
			order = -1
		case b.name == nil:
			order = 1
		default:
			order = bytes.Compare(b.name, a.name)
		}
		var name []byte
		var inBefore, inAfter fs.NodeID
		if order <= 0 {
			name, inBefore = b.name, b.id
			if err := b.next(); err != nil {
				return err
			}
		}
		if order >= 0 {
			name, inAfter = a.name, a.id
			if err := a.next(); err != nil {
				return err
			}
		}
		if err := d.pair(name, inBefore, inAfter); err != nil {
			return err
		}
	}
	return nil
}

// cursor is a place in a directory: an entry, or the end.
type cursor struct {
	index *index
	dir   *dirRecord // nil for a directory that is not there
	place uint32     // of the entry behind
	name  []byte     // nil at the end
	id    fs.NodeID
}

// list begins to list a directory, 0 standing for an empty one.
func (s *side) list(id fs.NodeID) (l cursor, err error) {
	if id == 0 {
		return l, nil
	}
	if s.listed++; s.listed > s.counts[secDirs] { // directories that contain each other
		return l, fs.ErrIO
	}
	l.index = s.index
	if _, l.dir, err = s.dir(id); err != nil {
		return l, err
	}
	return l, l.next()
}

func (l *cursor) next() error {
	l.name = nil
	if l.place == l.dir.count() {
		return nil
	}
	e, name, err := l.index.dirent(l.dir, l.place)
	if err != nil {
		return err
	}
	if !whole(name) {
		return fs.ErrIO
	}
	l.name, l.id = name, fs.NodeID(e.inode())
	l.place++
	return nil
}

// compare reports how two objects differ, nil standing for none.
func (d *differ) compare(before, after fs.NodeID, b, a *inode) (err error) {
	c := Change{}
	if b != nil && a != nil {
		if c.What, err = d.aspects(before, after, b, a); err != nil || c.What == 0 {
			return err
		}
	}
	if b != nil {
		if c.Before, err = d.before.describe(before, b); err != nil {
			return err
		}
	}
	if a != nil {
		if c.After, err = d.after.describe(after, a); err != nil {
			return err
		}
	}
	if c.Path = string(d.path); c.Path == "" {
		c.Path = "/"
	}
	return d.do(&c)
}

// aspects returns what differs about an object.
func (d *differ) aspects(before, after fs.NodeID, b, a *inode) (what Aspects, err error) {
	if b.mode() != a.mode() {
		what |= ChangedMode
	}
	if b.uid() != a.uid() || b.gid() != a.gid() {
		what |= ChangedOwner
	}
	if b.mtime() != a.mtime() {
		what |= ChangedTimes
	}
	if b.xattrs() != 0 || a.xattrs() != 0 {
		same, err := d.sameXattrs(b, a)
		if err != nil {
			return 0, err
		}
		if !same {
			what |= ChangedXattrs
		}
	}
	if b.kind() != a.kind() {
		return what | ChangedType, nil
	}
	if b.kind() != fs.Directory && d.relinked(before, after, b, a) {
		what |= ChangedLinks
	}
	switch b.kind() {
	case fs.Regular:
		old, now := d.before.record(secFiles, b.ref()), d.after.record(secFiles, a.ref())
		if old == nil || now == nil {
			return 0, fs.ErrIO
		}
		if !bytes.Equal(old, now) {
			what |= ChangedContent
		}
	case fs.Symlink:
		old, err := d.before.text(b)
		if err != nil {
			return 0, err
		}
		now, err := d.after.text(a)
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(old, now) {
			what |= ChangedTarget
		}
	case fs.BlockDevice, fs.CharDevice:
		if b.ref() != a.ref() {
			what |= ChangedDevice
		}
	}
	return what, nil
}

// relinked reports whether other names lead to an object now.
func (d *differ) relinked(before, after fs.NodeID, b, a *inode) bool {
	if b.nlink() <= 1 && a.nlink() <= 1 {
		return false
	}
	was, isTwin := d.before.twin[before]
	now, hasTwin := d.after.twin[after]
	if !isTwin {
		d.before.twin[before] = after
	}
	if !hasTwin {
		d.after.twin[after] = before
	}
	return b.nlink() != a.nlink() || isTwin && was != after || hasTwin && now != before
}

func (d *differ) sameXattrs(b, a *inode) (bool, error) {
	old, err := d.before.xattrs(b)
	if err != nil {
		return false, err
	}
	now, err := d.after.xattrs(a)
	if err != nil {
		return false, err
	}
	return slices.EqualFunc(old, now, func(x, y source.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	}), nil
}

// describe returns the object id, of which n is the record.
func (x *index) describe(id fs.NodeID, n *inode) (*Object, error) {
	o := new(Object)
	if err := x.attr(id, n, &o.Attr); err != nil {
		return nil, err
	}
	var err error
	if o.Xattrs, err = x.xattrs(n); err != nil {
		return nil, err
	}
	switch n.kind() {
	case fs.Regular:
		r := x.record(secFiles, n.ref())
		if r == nil {
			return nil, fs.ErrIO
		}
		o.Digest = Digest(r)
	case fs.Symlink:
		text, err := x.text(n)
		if err != nil {
			return nil, err
		}
		o.Target = string(text)
	}
	return o, nil
}
