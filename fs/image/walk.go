package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// entry is a name that a source has in a directory.
type entry struct {
	name string
	path string
	meta *source.Meta
}

// readDir lists a directory of a source in canonical order: by the bytes of the
// names.
func readDir(src billy.Filesystem, dir string) ([]entry, error) {
	infos, err := src.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(infos))
	for i, info := range infos {
		if entries[i], err = newEntry(dir, info); err != nil {
			return nil, err
		}
	}
	byName := func(a, b entry) int { return strings.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(entries, byName) {
		slices.SortFunc(entries, byName)
	}
	for i := 1; i < len(entries); i++ {
		if entries[i].name == entries[i-1].name {
			return nil, fmt.Errorf("%q is there twice", entries[i].path)
		}
	}
	return entries, nil
}

func newEntry(dir string, info os.FileInfo) (entry, error) {
	e := entry{name: info.Name(), path: strings.TrimSuffix(dir, "/") + "/" + info.Name(), meta: source.MetaOf(info)}
	name, err := fs.ParseName([]byte(e.name))
	if err != nil || name.IsDot() || name.IsDotDot() {
		return e, fmt.Errorf("%q in %q cannot be a name", e.name, dir)
	}
	if e.meta == nil {
		return e, fmt.Errorf("%q: this source does not tell owners and modes", e.path)
	}
	return e, nil
}

// identity is what two hard links to one object have in common.
type identity struct{ dev, ino uint64 }

// hasNames reports whether an object may have further names.
func hasNames(m *source.Meta) bool { return m.Kind != fs.Directory && m.Nlink > 1 }

// totals are what there is to seal.
type totals struct{ objects, bytes uint64 }

// count walks a source once without reading files, to know beforehand how much
// there is.
func count(ctx context.Context, src billy.Filesystem) (t totals, err error) {
	seen := make(map[identity]bool)
	dirs := []string{"/"}
	t.objects = 1
	for len(dirs) > 0 {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
		entries, err := readDir(src, dir)
		if err != nil {
			return t, err
		}
		for _, e := range entries {
			id := identity{e.meta.Dev, e.meta.Ino}
			if hasNames(e.meta) && seen[id] {
				continue
			}
			if hasNames(e.meta) {
				seen[id] = true
			}
			if e.meta.Kind == fs.Directory && !e.meta.MountPoint {
				dirs = append(dirs, e.path)
			}
			t.objects++
			t.bytes += toStore(e.meta)
		}
	}
	return t, nil
}

// toStore estimates what there is to store of an object: not its holes, and not
// what its file system adds.
func toStore(m *source.Meta) uint64 {
	if m.Kind != fs.Regular {
		return 0
	}
	return min(m.Size, m.Allocated)
}

// walker goes through a source in canonical order: level by level, each
// directory by the bytes of its names. It numbers the objects in that order, so
// that those which a directory is the first to name follow each other, and
// writes the sections about names and directories.
type walker struct {
	src      billy.Filesystem
	last     *recollection
	root     *source.Meta
	dirs     *spool
	dirents  *spool
	names    *spool
	hashes   *spool // of each entry, 32 bits, for the hash table
	inodes   uint32 // how many were given out
	numDirs  uint64
	queue    []directory // those to be listed
	links    map[identity]*hardLink
	warnings []string
}

// directory is one that was numbered and not yet listed.
type directory struct {
	entry
	inode  uint32
	parent uint32
	was    fs.NodeID // when the tree was sealed last
}

// hardLink is an object that has, on the host, several names.
type hardLink struct {
	inode uint32
	names uint32 // in the tree
}

// object is what the walker emits: an object that has just been numbered, or,
// if listed is set, a directory after all that it contains.
type object struct {
	entry
	listed  bool
	was     fs.NodeID // when the tree was sealed last; 0 if it is new
	ordinal uint64    // of a directory
	xattrs  []source.Xattr
	text    string      // of a symlink
	stored  *storedFile // content of a file that did not change
	block   block       // content of any other of at most blockSize
	// recalled says that all this is from the last seal.
	recalled bool
}

// walk emits all objects.
func (w *walker) walk(ctx context.Context, emit func(*object) error) error {
	info, err := w.src.Lstat("/")
	if err != nil {
		return err
	}
	root := entry{path: "/", meta: source.MetaOf(info)}
	if root.meta == nil || root.meta.Kind != fs.Directory {
		return errors.New("the tree is not a directory")
	}
	w.root = root.meta
	if err := w.addNew(root, 1, 1, emit); err != nil {
		return err
	}
	for len(w.queue) > 0 {
		d := w.queue[0]
		w.queue = w.queue[1:]
		if err := w.list(&d, emit); err != nil {
			return err
		}
		if err := emit(&object{entry: d.entry, listed: true}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// addNew numbers an object and emits it.
func (w *walker) addNew(e entry, parent uint32, was fs.NodeID, emit func(*object) error) error {
	if w.inodes == maxObjects {
		return fmt.Errorf("more than %d objects", uint32(maxObjects))
	}
	w.inodes++
	o := &object{entry: e, was: was}
	if e.meta.Kind == fs.Directory {
		o.ordinal = w.numDirs
		w.numDirs++
		w.queue = append(w.queue, directory{e, w.inodes, parent, was})
	}
	return emit(o)
}

// list numbers what is in a directory and writes the records about it.
func (w *walker) list(d *directory, emit func(*object) error) error {
	entries, err := w.contents(d)
	if err != nil {
		return err
	}
	first := w.hashes.n / slotSize
	if first+uint64(len(entries)) > maxObjects {
		return fmt.Errorf("more than %d names", uint32(maxObjects))
	}
	nlink := uint32(2)
	size := dirEntrySize(1) + dirEntrySize(2)
	for _, e := range entries {
		if err := w.enter(d, e, emit); err != nil {
			return err
		}
		if e.meta.Kind == fs.Directory {
			nlink++
		}
		size += dirEntrySize(len(e.name))
	}
	var r dirRecord
	r.set(uint32(first), uint32(len(entries)), d.parent, nlink, roundUp(size, dirBlock), d.inode)
	w.dirs.write(r[:])
	return nil
}

// contents lists a directory, unless something else is mounted on it: then the
// tree has an empty one there.
func (w *walker) contents(d *directory) ([]entry, error) {
	if d.meta.MountPoint {
		w.warnings = append(w.warnings, fmt.Sprintf("%q is a mount point: it is sealed as an empty directory of root, mode 0755", d.path))
		return nil, nil
	}
	return readDir(w.src, d.path)
}

// underMount stands for a directory that something else is mounted on, and that
// cannot be seen: what it is taken for must not depend on what is mounted.
func underMount(parent *source.Meta) *source.Meta {
	return &source.Meta{Kind: fs.Directory, Mode: 0o755, Mtime: parent.Mtime, MountPoint: true}
}

// enter writes the record of a name in d, and numbers the object if it is new.
func (w *walker) enter(d *directory, e entry, emit func(*object) error) error {
	if e.meta.MountPoint && e.meta.Kind != fs.Directory {
		return fmt.Errorf("%q is a mount point: unmount it first", e.path)
	}
	if e.meta.MountPoint {
		e.meta = underMount(d.meta)
	}
	inode, isNew := w.number(e.meta)
	var r dirent
	r.set(inode, e.meta.Kind, len(e.name), w.names.n)
	w.dirents.write(r[:])
	w.names.write([]byte(e.name))
	w.hashes.write(le.AppendUint32(nil, hashName(d.inode, e.name)))
	if !isNew {
		return nil
	}
	return w.addNew(e, d.inode, w.last.find(d.was, e.name), emit)
}

// number returns the inode number of an object: the next, unless this is a
// further name of one that has a number.
func (w *walker) number(m *source.Meta) (inode uint32, isNew bool) {
	next := w.inodes + 1
	if !hasNames(m) {
		return next, true
	}
	id := identity{m.Dev, m.Ino}
	if l, ok := w.links[id]; ok {
		l.names++
		return l.inode, false
	}
	w.links[id] = &hardLink{next, 1}
	return next, true
}

// The size of a directory is made up, since that of the host's tells how it was
// used before: what its entries would take with a header of 16 bytes each, in
// blocks of 4096 bytes.
const dirBlock = 4096

func dirEntrySize(name int) uint64 { return 16 + uint64(name) }

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }
