// Package volume offers a file system that lies in an image as a source: what
// its format is like, a Volume knows; paths, listings and open files are the
// same for all and are here. One volume can be mounted in another.
//
// Volumes may be made by somebody hostile. A directory that is found in two
// places, as in a loop, is refused, and so are directories that share room (Listings).
package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-billy/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// Volume is a read-only file system whose objects have numbers. Its methods may
// be called by many goroutines at once. Errors tell what is damaged.
type Volume interface {
	// Root is the number of the root directory.
	Root() uint64
	// Meta describes an object. Dev is left to the caller.
	Meta(ino uint64) (source.Meta, error)
	// List returns what is in a directory, in any order, and refuses if its ".."
	// does not name parent, where it was found; that of the root is itself.
	List(dir, parent uint64) ([]Entry, error)
	// Readlink returns the text of a symlink.
	Readlink(ino uint64) (string, error)
	// Xattrs returns the extended attributes that source.Carries.
	Xattrs(ino uint64) ([]source.Xattr, error)
	// Open opens the content of a regular file.
	Open(ino uint64) (Content, error)
}

// ErrElsewhere is List's error for a directory that was found in a strange place.
var ErrElsewhere = errors.New(`damaged: ".." of the directory leads elsewhere; let fsck repair the image`)

// Entry is a name in a directory.
type Entry struct {
	Name string
	Ino  uint64
}

// Content is what is in a file. Reads stay within its size.
type Content interface {
	io.ReaderAt
	source.DataFinder
}

// SortXattrs is source.SortXattrs for what was read of a volume.
func SortXattrs(all []source.Xattr) error {
	if err := source.SortXattrs(all); err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	return nil
}

// FS is a volume as a source.
type FS struct {
	source.ReadOnly
	base     Volume
	mounted  Volume // in place of what base has at mountAt; may be nil
	mountAt  string
	listings *lru.Cache[string, *listing]
	kept     atomic.Int64 // names in listings
}

var (
	_ billy.Filesystem   = (*FS)(nil)
	_ source.XattrReader = (*FS)(nil)
)

// listed is how many listings are kept, so that a path is not looked up by
// reading its directories. A seal lists eight ahead of what it reads.
const listed = 64

// New returns v as a source.
func New(v Volume) *FS {
	f := &FS{base: v}
	// This fails for a size below 1 only.
	f.listings, _ = lru.NewWithEvict(listed, func(_ string, l *listing) { f.kept.Add(-int64(len(l.names))) })
	return f
}

// Mount shows m's content in the directory at p, which must be there, instead
// of what is in it. It is called before anything else.
func (f *FS) Mount(p string, m Volume) error {
	p = path.Clean("/" + p)
	info, err := f.Lstat(p)
	if err != nil {
		return err
	}
	if !info.IsDir() || p == "/" {
		return &os.PathError{Op: "mount", Path: p, Err: errors.New("not a directory below the root")}
	}
	f.mounted, f.mountAt = m, p
	f.listings.Purge()
	return nil
}

// object is what a path leads to.
type object struct {
	vol    Volume
	dev    uint64
	path   string
	ino    uint64
	parent uint64 // the directory that it was found in; of a root itself
}

// listing is the names in a directory.
type listing struct {
	dir   object
	names map[string]uint64
}

// maxPath is the length of a path for which a client has a name (PATH_MAX).
const maxPath = 4095

// find goes up to the first directory whose listing is kept, and down again from there.
func (f *FS) find(p string) (object, error) {
	p = path.Clean("/" + p)
	switch {
	case len(p) > maxPath:
		return object{}, fmt.Errorf("the path is longer than %d bytes", maxPath)
	case p == "/":
		return object{f.base, 1, p, f.base.Root(), f.base.Root()}, nil
	case f.mounted != nil && p == f.mountAt:
		return object{f.mounted, 2, p, f.mounted.Root(), f.mounted.Root()}, nil
	}
	in, ok := f.listings.Get(path.Dir(p))
	if !ok {
		dir, err := f.find(path.Dir(p))
		if err != nil {
			return object{}, err
		}
		if in, err = f.list(dir); err != nil {
			return object{}, err
		}
	}
	ino, ok := in.names[path.Base(p)]
	if !ok {
		return object{}, os.ErrNotExist
	}
	return object{in.dir.vol, in.dir.dev, p, ino, in.dir.ino}, nil
}

// maxNames bounds what is made of a listing in memory, some 250 bytes for each name, and
// all that are kept.
const maxNames = 1 << 20

// list reads a directory and keeps the listing.
func (f *FS) list(dir object) (*listing, error) {
	// Each directory has one "..", so if that is where it was found, no directory
	// is in two others, and none below itself.
	entries, err := dir.vol.List(dir.ino, dir.parent)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxNames {
		return nil, fmt.Errorf("there are %d names in it, and at most %d can be", len(entries), maxNames)
	}
	l := &listing{dir, make(map[string]uint64, len(entries))}
	for _, e := range entries {
		if n, err := fs.ParseName([]byte(e.Name)); err != nil || n.IsDot() || n.IsDotDot() {
			return nil, fmt.Errorf("damaged: %q cannot be a name", e.Name)
		}
		if _, twice := l.names[e.Name]; twice {
			return nil, fmt.Errorf("damaged: %q is there twice", e.Name)
		}
		l.names[e.Name] = e.Ino
	}
	f.keep(l)
	return l, nil
}

// keep keeps a listing, and not more of the others than have maxNames with it.
func (f *FS) keep(l *listing) {
	if known, _ := f.listings.ContainsOrAdd(l.dir.path, l); known {
		f.listings.Get(l.dir.path) // which is the newest then
		return
	}
	f.kept.Add(int64(len(l.names)))
	for f.kept.Load() > maxNames && f.listings.Len() > 1 {
		f.listings.RemoveOldest()
	}
}

func (o *object) meta() (source.Meta, error) {
	m, err := o.vol.Meta(o.ino)
	m.Dev, m.Ino = o.dev, o.ino
	return m, err
}

// at finds p for an operation and names both in errors.
func at[T any](f *FS, op, p string, do func(object) (T, error)) (T, error) {
	o, err := f.find(p)
	var v T
	if err == nil {
		v, err = do(o)
	}
	if err != nil {
		return v, &os.PathError{Op: op, Path: p, Err: err}
	}
	return v, nil
}

// Lstat returns the FileInfo of the object at p.
func (f *FS) Lstat(p string) (os.FileInfo, error) {
	return at(f, "stat", p, func(o object) (os.FileInfo, error) {
		m, err := o.meta()
		return source.NewInfo(path.Base(o.path), m), err
	})
}

// Stat is Lstat: a source does not follow links.
func (f *FS) Stat(p string) (os.FileInfo, error) { return f.Lstat(p) }

// ReadDir returns the entries of the directory at p, sorted by name.
func (f *FS) ReadDir(p string) ([]os.FileInfo, error) {
	return at(f, "readdir", p, func(dir object) ([]os.FileInfo, error) {
		l, err := f.list(dir)
		if err != nil {
			return nil, err
		}
		infos := make([]os.FileInfo, 0, len(l.names))
		dirs := map[uint64]bool{}
		for name, ino := range l.names {
			o := object{dir.vol, dir.dev, path.Join(dir.path, name), ino, dir.ino}
			if f.mounted != nil && o.path == f.mountAt {
				o = object{f.mounted, 2, o.path, f.mounted.Root(), f.mounted.Root()}
			}
			m, err := o.meta()
			if err != nil {
				return nil, fmt.Errorf("%q: %w", name, err)
			}
			if m.Kind == fs.Directory {
				if dirs[ino] {
					return nil, fmt.Errorf("damaged: %q is another name of a directory", name)
				}
				dirs[ino] = true
			}
			infos = append(infos, source.NewInfo(name, m))
		}
		slices.SortFunc(infos, func(a, b os.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
		return infos, nil
	})
}

// Readlink returns the text of the symlink at p.
func (f *FS) Readlink(p string) (string, error) {
	return at(f, "readlink", p, func(o object) (string, error) { return o.vol.Readlink(o.ino) })
}

// Xattrs implements source.XattrReader.
func (f *FS) Xattrs(p string) ([]source.Xattr, error) {
	return at(f, "listxattr", p, func(o object) ([]source.Xattr, error) { return o.vol.Xattrs(o.ino) })
}

// Open opens the regular file at p.
func (f *FS) Open(p string) (billy.File, error) {
	return at(f, "open", p, func(o object) (billy.File, error) {
		m, err := o.meta()
		if err != nil {
			return nil, err
		}
		if m.Kind != fs.Regular {
			return nil, errors.New("not a regular file")
		}
		c, err := o.vol.Open(o.ino)
		if err != nil {
			return nil, err
		}
		return &file{SectionReader: io.NewSectionReader(c, 0, int64(m.Size)), content: c, object: o}, nil
	})
}

// OpenFile is Open for flag O_RDONLY and refuses everything else.
func (f *FS) OpenFile(p string, flag int, _ os.FileMode) (billy.File, error) {
	if flag != os.O_RDONLY {
		return nil, billy.ErrReadOnly
	}
	return f.Open(p)
}

// Chroot is not offered: a Volume is sealed whole.
func (f *FS) Chroot(string) (billy.Filesystem, error) { return nil, billy.ErrNotSupported }

// Root returns "/".
func (f *FS) Root() string { return "/" }

type file struct {
	source.ReadOnlyFile
	*io.SectionReader
	content Content
	object  object
}

var (
	_ source.DataFinder = (*file)(nil)
	_ source.Xattrer    = (*file)(nil)
)

func (f *file) Name() string { return f.object.path }
func (f *file) Close() error { return nil }

// NextData implements source.DataFinder.
func (f *file) NextData(off int64) (from, to int64, err error) { return f.content.NextData(off) }

// Xattrs implements source.Xattrer.
func (f *file) Xattrs() ([]source.Xattr, error) { return f.object.vol.Xattrs(f.object.ino) }
