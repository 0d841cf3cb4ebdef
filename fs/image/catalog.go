package image

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// catalog is a tree in the making, whose objects come in any order (see
// source.Sink): all but the content of its files. It lies in scratch, some 200 bytes
// for each object, and what is replaced or removed keeps its place.
//
// When all has come, it is a source, of which an index is built. It can then be read by
// many goroutines at once.
type catalog struct {
	source.ReadOnly
	names   records[catalogName]
	objects records[catalogObject]
	texts   arena     // names, texts of symlinks, extended attributes
	table   hashTable // of names
	layer   uint32
	content *receiver
	left    uint64 // bytes of content that may still come
}

var (
	_ source.Sink        = (*catalog)(nil)
	_ billy.Filesystem   = (*catalog)(nil)
	_ source.XattrReader = (*catalog)(nil)
)

// catalogName is a name in a directory. It stays when the object is removed, and may
// get another one.
type catalogName struct {
	text   place64
	parent uint32 // the directory's name
	child  uint32 // the last name that was added to this directory
	next   uint32 // the one that was added to the same directory before, or unlisted
	object uint32 // 0 if it is gone
	layer  uint32 // that put it
	// The last layer that cleared it: what is below has been put since, and none of it
	// is gone.
	cleared uint32
}

// unlisted is the next of a name that is gone and in no list of its directory's names,
// so that these are not gone through over and over.
const unlisted = math.MaxUint32

// place64 is a place in texts.
type place64 struct{ at, n uint64 }

// catalogObject is all about an object but its names.
type catalogObject struct {
	meta    fixedMeta
	text    place64 // of a symlink
	xattrs  place64 // as in secXattrs
	content uint64  // number of the content of a regular file
}

// fixedMeta is what a Sink is told of an object.
type fixedMeta struct {
	size                uint64
	sec                 int64
	nsec, mode          uint32
	uid, gid            uint32
	major, minor, nlink uint32
	kind                uint32
}

// catalogEntry is the record of a name in the table: its number, and its hash.
type catalogEntry [8]byte

const catalogRoot = 1 // number of the root's name

func newCatalog(s *Store, most uint64) (*catalog, error) {
	hash := func(r []byte) uint32 { return le.Uint32(r[4:]) }
	c := &catalog{table: hashTable{store: s, size: len(catalogEntry{}), hash: hash}, left: most}
	c.names.store, c.objects.store, c.texts.store = s, s, s
	_, root, err := c.names.add()
	if err == nil {
		root.object, err = c.newObject(&defaultDir)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// defaultDir is a directory of which nothing was said.
var defaultDir = catalogObject{meta: fixedMeta{kind: uint32(fs.Directory), mode: 0o755}}

func (c *catalog) close() {
	c.names.close()
	c.objects.close()
	c.texts.close()
	c.table.close()
}

func (c *catalog) newObject(o *catalogObject) (uint32, error) {
	number, m, err := c.objects.add()
	if err != nil {
		return 0, err
	}
	*m = *o
	m.meta.nlink = 1
	return number, nil
}

func (c *catalog) textOf(p place64) string { return string(c.texts.bytes(p.at, p.n)) }

func (c *catalog) addText(b []byte) (place64, error) {
	if len(b) == 0 {
		return place64{}, nil
	}
	at, err := c.texts.add(b)
	return place64{at, uint64(len(b))}, err
}

func (c *catalog) isDir(name *catalogName) bool {
	return name.object != 0 && c.objects.at(name.object).meta.kind == uint32(fs.Directory)
}

// is returns what tells the name with that text in a directory from others.
func (c *catalog) is(parent uint32, text string) func(r []byte) bool {
	return func(r []byte) bool {
		n := c.names.at(le.Uint32(r))
		return n.parent == parent && n.text.n == uint64(len(text)) && string(c.texts.bytes(n.text.at, n.text.n)) == text
	}
}

// seek returns the number of a name in a directory, 0 if there is none. It changes
// nothing.
func (c *catalog) seek(parent uint32, text string) uint32 {
	if c.table.mem.data == nil {
		return 0
	}
	return le.Uint32(c.table.seek(hashName(parent, text), c.is(parent, text)))
}

// enter returns the number of a name in a directory, which may be new.
func (c *catalog) enter(parent uint32, text string) (uint32, error) {
	hash := hashName(parent, text)
	r, err := c.table.find(hash, c.is(parent, text))
	if err != nil {
		return 0, err
	}
	if !isFree(r) {
		return le.Uint32(r), nil
	}
	number, n, err := c.names.add()
	if err != nil {
		return 0, err
	}
	if n.text, err = c.addText([]byte(text)); err != nil {
		return 0, err
	}
	dir := c.names.at(parent)
	n.parent, n.next, dir.child = parent, dir.child, number
	var e catalogEntry
	le.PutUint32(e[0:], number)
	le.PutUint32(e[4:], hash)
	c.table.put(r, e[:])
	return number, nil
}

// maxPath is the length of a path for which a client has a name (PATH_MAX).
const maxPath = 4095

// errBadPath is wrapped by the errors about paths that cannot be.
var errBadPath = errors.New("this cannot be in a tree")

// split returns the components of a path.
func split(p string) ([]string, error) {
	parts, err := components(p)
	if err == nil && slices.Contains(parts, "..") {
		err = fmt.Errorf(`%q has ".." in it: %w`, p, errBadPath)
	}
	return parts, err
}

// components is split for the text of a symlink, which may have ".." in it.
func components(p string) ([]string, error) {
	if len(p) > maxPath {
		return nil, fmt.Errorf("%.40q... is longer than %d bytes: %w", p, maxPath, errBadPath)
	}
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." {
			continue
		}
		if _, err := fs.ParseName([]byte(part)); err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// maxSteps is through how many names a path leads, those in symlinks counted, before it
// leads through no more symlinks. Each entry of an archive could have it lead through many.
const maxSteps = maxPath

// descend returns the number of the directory that parts lead to. With make it makes
// what is missing; without it, that is os.ErrNotExist. With follow symlinks lead where
// they would if the tree were all that there is.
func (c *catalog) descend(parts []string, make, follow bool) (uint32, error) {
	at := uint32(catalogRoot)
	for links, steps := 0, 0; len(parts) > 0; steps++ {
		part := parts[0]
		parts = parts[1:]
		if part == ".." { // in a symlink
			at = max(c.names.at(at).parent, catalogRoot)
			continue
		}
		next := c.seek(at, part)
		if next == 0 || c.names.at(next).object == 0 {
			if !make {
				return 0, os.ErrNotExist
			}
			var err error
			if next, err = c.enter(at, part); err != nil {
				return 0, err
			}
			if err := c.assign(next, &defaultDir); err != nil {
				return 0, err
			}
		}
		n := c.names.at(next)
		if c.isDir(n) {
			at = next
			continue
		}
		o := c.objects.at(n.object)
		if o.meta.kind != uint32(fs.Symlink) {
			return 0, fmt.Errorf("%q is no directory, and something is said to be below it: %w", c.pathOf(next), errBadPath)
		}
		if links++; !follow || links > maxLinks || steps > maxSteps {
			return 0, fmt.Errorf("%q is a symlink, and something is said to be below it: %w", c.pathOf(next), errBadPath)
		}
		text := c.textOf(o.text)
		more, err := components(text)
		if err != nil {
			return 0, err
		}
		if strings.HasPrefix(text, "/") {
			at = catalogRoot
		}
		parts = slices.Concat(more, parts)
	}
	return at, nil
}

// pathOf returns the path of a name.
func (c *catalog) pathOf(name uint32) string {
	p := ""
	for ; name != catalogRoot; name = c.names.at(name).parent {
		p = "/" + c.textOf(c.names.at(name).text) + p
	}
	return p
}

// assign gives a name an object of its own.
func (c *catalog) assign(name uint32, o *catalogObject) error {
	number, err := c.newObject(o)
	if err != nil {
		return err
	}
	c.give(name, number)
	return nil
}

// give gives a name an object.
func (c *catalog) give(name, object uint32) {
	n := c.names.at(name)
	n.object, n.layer = object, c.layer
	if n.next == unlisted {
		dir := c.names.at(n.parent)
		n.next, dir.child = dir.child, name
	}
}

// release takes its object away from a name, and all that is below it.
func (c *catalog) release(n *catalogName) {
	if n.object == 0 {
		return
	}
	for child := n.child; child != 0; {
		below := c.names.at(child)
		c.release(below)
		child, below.next = below.next, unlisted
	}
	n.child = 0
	c.objects.at(n.object).meta.nlink--
	n.object = 0
}

// clear releases what earlier layers have put below a name.
func (c *catalog) clear(n *catalogName) {
	if n.cleared == c.layer {
		return
	}
	n.cleared = c.layer
	child := n.child
	n.child = 0
	for child != 0 {
		below, number := c.names.at(child), child
		child, below.next = below.next, unlisted
		if c.prune(below) {
			below.next, n.child = n.child, number
		}
	}
}

// prune releases what earlier layers have put at a name or below it, and reports
// whether something is left.
func (c *catalog) prune(n *catalogName) (left bool) {
	if n.object == 0 {
		return false
	}
	c.clear(n)
	if n.child == 0 && n.layer != c.layer {
		c.release(n)
		return false
	}
	return true
}

// Put implements source.Sink.
func (c *catalog) Put(p string, m *source.Meta, text string, xattrs []source.Xattr, content io.Reader) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	parts, err := split(p)
	if err != nil {
		return err
	}
	o, err := c.describe(m, text, xattrs)
	if err != nil {
		return fmt.Errorf("%q: %w", p, err)
	}
	if len(parts) == 0 {
		return c.putRoot(o)
	}
	name := parts[len(parts)-1]
	parent, err := c.descend(parts[:len(parts)-1], true, c.layered())
	if err != nil {
		return err
	}
	if m.Kind == fs.Regular {
		if m.Size > c.left {
			return fmt.Errorf("%q: %w", p, errTooLarge)
		}
		c.left -= m.Size
		if o.content, err = c.content.keep(m.Size, content); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	c.content.parcel.objects++
	number, err := c.enter(parent, name)
	if err != nil {
		return err
	}
	n := c.names.at(number)
	if m.Kind == fs.Directory && c.isDir(n) {
		o.meta.nlink, n.layer = 1, c.layer
		*c.objects.at(n.object) = *o
		return nil
	}
	c.release(n)
	return c.assign(number, o)
}

// ErrTooMuch is wrapped by the errors about more content than was allowed.
var ErrTooMuch = errors.New("that is more than was allowed")

// errTooLarge is ErrTooMuch of a tree.
var errTooLarge = fmt.Errorf("the files are larger in all, holes counted: %w", ErrTooMuch)

func (c *catalog) putRoot(o *catalogObject) error {
	if o.meta.kind != uint32(fs.Directory) {
		return fmt.Errorf("the root is no directory: %w", errBadPath)
	}
	o.meta.nlink = 1
	*c.objects.at(c.names.at(catalogRoot).object) = *o
	return nil
}

// describe makes the record of an object.
func (c *catalog) describe(m *source.Meta, text string, xattrs []source.Xattr) (o *catalogObject, err error) {
	o = &catalogObject{meta: fixedMeta{
		kind: uint32(m.Kind), mode: m.Mode & 0o7777, uid: m.UID, gid: m.GID, sec: m.Mtime.Sec, nsec: m.Mtime.Nsec,
	}}
	switch m.Kind {
	case fs.Regular:
		o.meta.size = m.Size
	case fs.Symlink:
		if text == "" || len(text) > maxPath || strings.Contains(text, "\x00") {
			return nil, fmt.Errorf("%.40q cannot be the text of a symlink", text)
		}
		o.meta.mode, o.meta.size = 0o777, uint64(len(text)) // as Linux has it
		if o.text, err = c.addText([]byte(text)); err != nil {
			return nil, err
		}
	case fs.BlockDevice, fs.CharDevice:
		o.meta.major, o.meta.minor = m.Major, m.Minor
	case fs.Directory, fs.FIFO, fs.Socket:
	default:
		return nil, fmt.Errorf("kind %d is not known", m.Kind)
	}
	o.xattrs, err = c.addXattrs(xattrs)
	return o, err
}

// The kernel takes no more (xattr(7)).
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
)

func (c *catalog) addXattrs(xattrs []source.Xattr) (place64, error) {
	var kept []source.Xattr
	size := 0
	for _, x := range xattrs {
		if !source.Carries(x.Name) {
			continue
		}
		if len(x.Name) > maxXattrName || len(x.Value) > maxXattrValue || strings.Contains(x.Name, "\x00") {
			return place64{}, fmt.Errorf("the extended attribute %.40q is too large", x.Name)
		}
		if size += len(x.Name) + len(x.Value) + 16; size > arenaPiece {
			return place64{}, errors.New("too many extended attributes")
		}
		kept = append(kept, x)
	}
	if len(kept) == 0 {
		return place64{}, nil
	}
	if err := source.SortXattrs(kept); err != nil {
		return place64{}, err
	}
	return c.addText(appendXattrs(nil, kept))
}

// Link implements source.Sink.
func (c *catalog) Link(p, old string) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	parts, err := split(p)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return fmt.Errorf("the root is no hard link: %w", errBadPath)
	}
	object, err := c.target(old)
	if err != nil {
		return fmt.Errorf("%q is a hard link to %q: %w", p, old, err)
	}
	parent, err := c.descend(parts[:len(parts)-1], true, c.layered())
	if err != nil {
		return err
	}
	number, err := c.enter(parent, parts[len(parts)-1])
	if err != nil {
		return err
	}
	c.content.parcel.objects++
	n := c.names.at(number)
	if n.object != object {
		c.objects.at(object).meta.nlink++ // before its only name is released
		c.release(n)
	}
	c.give(number, object)
	return nil
}

// target returns the object at a path that a link is to be made to.
func (c *catalog) target(p string) (uint32, error) {
	n, err := c.lookup(p, c.layered())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, fmt.Errorf("there is no such object before it: %w", errBadPath)
	case err != nil:
		return 0, err
	case c.isDir(n):
		return 0, fmt.Errorf("that is a directory: %w", errBadPath)
	}
	return n.object, nil
}

// lookup finds the name at a path, which has an object. With follow a symlink may be on
// the way to it.
func (c *catalog) lookup(p string, follow bool) (*catalogName, error) {
	parts, err := split(p)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return c.names.at(catalogRoot), nil
	}
	dir, err := c.descend(parts[:len(parts)-1], false, follow)
	if err != nil {
		return nil, err
	}
	number := c.seek(dir, parts[len(parts)-1])
	if number == 0 || c.names.at(number).object == 0 {
		return nil, os.ErrNotExist
	}
	return c.names.at(number), nil
}

// Layer implements source.Sink.
func (c *catalog) Layer() { c.layer++ }

// layered reports whether what comes is a layer, and paths in it lead through symlinks.
func (c *catalog) layered() bool { return c.layer > 0 }

// Remove implements source.Sink.
func (c *catalog) Remove(p string) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	n, err := c.lookup(p, c.layered())
	if errors.Is(err, os.ErrNotExist) || err == nil && n.parent == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	c.prune(n)
	return nil
}

// Clear implements source.Sink.
func (c *catalog) Clear(p string) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	n, err := c.lookup(p, c.layered())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c.clear(n)
	return nil
}

// meta returns what the catalog has of an object, as the walker wants it.
func (c *catalog) meta(number uint32) source.Meta {
	m := &c.objects.at(number).meta
	return source.Meta{
		Kind: fs.Kind(m.kind), Mode: m.mode, UID: m.uid, GID: m.gid, Size: m.size, Major: m.major, Minor: m.minor,
		Ino: uint64(number), Nlink: m.nlink, Mtime: fs.Time{Sec: m.sec, Nsec: m.nsec},
	}
}

// Lstat implements billy.Symlink.
func (c *catalog) Lstat(p string) (_ os.FileInfo, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	n, err := c.lookup(p, false)
	if err != nil {
		return nil, pathError("stat", p, err)
	}
	return source.NewInfo(path.Base(p), c.meta(n.object)), nil
}

// Stat is Lstat: a source does not follow links.
func (c *catalog) Stat(p string) (os.FileInfo, error) { return c.Lstat(p) }

// ReadDir implements billy.Dir. The order is that of the names' bytes.
func (c *catalog) ReadDir(p string) (infos []os.FileInfo, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	dir, err := c.lookup(p, false)
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	for number := dir.child; number != 0; {
		n := c.names.at(number)
		if n.object != 0 {
			infos = append(infos, source.NewInfo(c.textOf(n.text), c.meta(n.object)))
		}
		number = n.next
	}
	slices.SortFunc(infos, func(a, b os.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return infos, nil
}

// fill fills in what would have to be read of an object.
func (c *catalog) fill(o *object, t *batch) (err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	if o.meta.Ino == 0 || o.meta.Ino > math.MaxUint32 {
		return fs.ErrIO
	}
	have := c.objects.at(uint32(o.meta.Ino))
	if have.xattrs.n > 0 {
		if o.xattrs, err = parseXattrs(c.texts.bytes(have.xattrs.at, have.xattrs.n)); err != nil {
			return err
		}
	}
	switch o.meta.Kind {
	case fs.Symlink:
		o.text = c.textOf(have.text)
	case fs.Regular:
		o.stored, err = c.content.stored(have.content, t)
	}
	return err
}

// has reports whether an object is one of the catalog, or has its content.
func (c *catalog) has(m *source.Meta) bool {
	return c != nil && m.Dev == 0 && m.Ino > 0 && m.Ino <= uint64(c.objects.n)
}

// object returns the object at a path, of a kind if that is not 0.
func (c *catalog) object(p string, kind fs.Kind) (*catalogObject, error) {
	n, err := c.lookup(p, false)
	if err != nil {
		return nil, err
	}
	o := c.objects.at(n.object)
	if kind != 0 && o.meta.kind != uint32(kind) {
		return nil, syscall.EINVAL
	}
	return o, nil
}

// Readlink implements billy.Symlink.
func (c *catalog) Readlink(p string) (text string, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	o, err := c.object(p, fs.Symlink)
	if err != nil {
		return "", pathError("readlink", p, err)
	}
	return c.textOf(o.text), nil
}

// Xattrs implements source.XattrReader.
func (c *catalog) Xattrs(p string) (all []source.Xattr, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	o, err := c.object(p, 0)
	if err != nil {
		return nil, pathError("listxattr", p, err)
	}
	if o.xattrs.n == 0 {
		return nil, nil
	}
	return parseXattrs(c.texts.bytes(o.xattrs.at, o.xattrs.n))
}

// Open implements billy.Basic.
func (c *catalog) Open(p string) (_ billy.File, err error) {
	defer guard(debug.SetPanicOnFault(true), &err)
	o, err := c.object(p, fs.Regular)
	if err != nil {
		return nil, pathError("open", p, err)
	}
	s, err := c.content.stored(o.content, new(batch))
	if err != nil {
		return nil, pathError("open", p, err)
	}
	content := &keptContent{s.extents, c.content.b.pack}
	return &keptFile{SectionReader: io.NewSectionReader(content, 0, int64(o.meta.size)), name: p}, nil
}

// OpenFile is Open for reading, and refuses everything else.
func (c *catalog) OpenFile(p string, flag int, _ os.FileMode) (billy.File, error) {
	if flag != os.O_RDONLY {
		return nil, billy.ErrReadOnly
	}
	return c.Open(p)
}

// Chroot is not offered.
func (c *catalog) Chroot(string) (billy.Filesystem, error) { return nil, billy.ErrNotSupported }

// Root implements billy.Chroot.
func (c *catalog) Root() string { return "/" }
