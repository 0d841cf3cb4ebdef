// Package overlay lays changes over a source, which stays as it is: files that
// are replaced or added, symlinks, directories, other modes, names that are gone.
// What comes out is a source itself, and the same each time that the same is laid
// over the same.
package overlay

import (
	"bytes"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// Overlay is a source with changes. Paths are real ones: no symlink on the way is
// followed. It may be read by many goroutines at once when it is not being
// changed any more.
type Overlay struct {
	source.ReadOnly
	base    billy.Filesystem
	entries map[string]*entry   // what is not as it is in base, by path
	names   map[string][]string // of entries, by directory
	numbers uint64              // inode numbers that were given out
}

// entry is what is at a path instead of what base has there.
type entry struct {
	meta    *source.Meta // nil if there is nothing
	content []byte       // of a regular file
	target  string       // of a symlink
	xattrs  []source.Xattr
	kept    bool // content and attributes are those of base
}

var (
	_ billy.Filesystem   = (*Overlay)(nil)
	_ source.XattrReader = (*Overlay)(nil)
)

// New returns an overlay without changes over base, which must tell owners and
// modes (see source.MetaOf).
func New(base billy.Filesystem) *Overlay {
	return &Overlay{base: base, entries: map[string]*entry{}, names: map[string][]string{}}
}

// WriteFile puts a regular file at p. What else there is to know of it is what
// was known of a file that it replaces; a new one is root's, with the mode given,
// and as old as the directory that it is in.
func (o *Overlay) WriteFile(p string, content []byte, mode uint32) error {
	m, xattrs, err := o.replace(p, fs.Regular, mode)
	if err != nil {
		return err
	}
	m.Size, m.Allocated = uint64(len(content)), uint64(len(content))
	o.put(p, &entry{meta: m, content: bytes.Clone(content), xattrs: xattrs})
	return nil
}

// Link puts a symlink at p.
func (o *Overlay) Link(p, target string) error {
	m, _, err := o.replace(p, fs.Symlink, 0o777)
	if err != nil {
		return err
	}
	m.Size = uint64(len(target))
	o.put(p, &entry{meta: m, target: target})
	return nil
}

// Mkdir puts a directory at p, which must not exist.
func (o *Overlay) Mkdir(p string) error {
	if _, err := o.Lstat(p); err == nil {
		return pathError("mkdir", p, syscall.EEXIST)
	}
	m, _, err := o.replace(p, fs.Directory, 0o755)
	if err != nil {
		return err
	}
	o.put(p, &entry{meta: m})
	return nil
}

// Chmod gives what is at p another mode, within 07777. Other names of the same
// file must be given it, too.
func (o *Overlay) Chmod(p string, mode uint32) error {
	p = clean(p)
	info, err := o.Lstat(p)
	if err != nil {
		return err
	}
	m := *source.MetaOf(info)
	m.Mode = mode & 0o7777
	e := entry{kept: true}
	if was := o.entries[p]; was != nil {
		e = *was
	}
	e.meta = &m
	o.put(p, &e)
	return nil
}

// Hide takes away what is at p and is no directory.
func (o *Overlay) Hide(p string) error {
	info, err := o.Lstat(p)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return pathError("remove", p, syscall.EISDIR)
	}
	o.put(p, &entry{})
	return nil
}

// Changed reports whether anything is not as it is in base.
func (o *Overlay) Changed() bool { return len(o.entries) > 0 }

// replace returns the metadata of an object that takes the place of what is at p,
// and the attributes that it keeps.
func (o *Overlay) replace(p string, kind fs.Kind, mode uint32) (*source.Meta, []source.Xattr, error) {
	above, err := o.Lstat(path.Dir(clean(p)))
	if err != nil {
		return nil, nil, err
	}
	dir := source.MetaOf(above)
	if dir == nil || dir.Kind != fs.Directory {
		return nil, nil, pathError("create", p, syscall.ENOTDIR)
	}
	m := &source.Meta{Kind: kind, Mode: mode, Mtime: dir.Mtime, Ctime: dir.Ctime}
	var xattrs []source.Xattr
	info, err := o.Lstat(p)
	switch {
	case err != nil && !os.IsNotExist(err):
		return nil, nil, err
	case err == nil && info.IsDir():
		return nil, nil, pathError("create", p, syscall.EISDIR)
	case err == nil:
		was := source.MetaOf(info)
		m.Mtime, m.Ctime = was.Mtime, was.Ctime
		if was.Kind == kind {
			m.Mode, m.UID, m.GID = was.Mode, was.UID, was.GID
			if xattrs, err = o.Xattrs(p); err != nil {
				return nil, nil, err
			}
		}
	}
	// A number that no object of base has: those count from below.
	o.numbers++
	m.Dev, m.Ino, m.Nlink = dir.Dev, math.MaxUint64-o.numbers, 1
	return m, xattrs, nil
}

func (o *Overlay) put(p string, e *entry) {
	p = clean(p)
	if o.entries[p] == nil {
		dir := path.Dir(p)
		o.names[dir] = append(o.names[dir], path.Base(p))
	}
	o.entries[p] = e
}

func clean(p string) string { return path.Clean("/" + p) }

func pathError(op, p string, err error) error { return &os.PathError{Op: op, Path: p, Err: err} }

// Lstat returns the FileInfo of the object at p, not following it.
func (o *Overlay) Lstat(p string) (os.FileInfo, error) {
	p = clean(p)
	e := o.entries[p]
	switch {
	case e == nil:
		return o.base.Lstat(p)
	case e.meta == nil:
		return nil, pathError("stat", p, syscall.ENOENT)
	}
	return source.NewInfo(path.Base(p), *e.meta), nil
}

// Stat is Lstat: a source does not follow links.
func (o *Overlay) Stat(p string) (os.FileInfo, error) { return o.Lstat(p) }

// Readlink returns the text of the symlink at p.
func (o *Overlay) Readlink(p string) (string, error) {
	e := o.entries[clean(p)]
	switch {
	case e == nil || e.kept && e.meta != nil:
		return o.base.Readlink(p)
	case e.meta == nil:
		return "", pathError("readlink", p, syscall.ENOENT)
	case e.meta.Kind != fs.Symlink:
		return "", pathError("readlink", p, syscall.EINVAL)
	}
	return e.target, nil
}

// ReadDir returns the entries of the directory at p, sorted by the bytes of
// their names.
func (o *Overlay) ReadDir(p string) ([]os.FileInfo, error) {
	p = clean(p)
	var infos []os.FileInfo
	if e := o.entries[p]; e == nil || e.kept && e.meta != nil {
		below, err := o.base.ReadDir(p)
		if err != nil {
			return nil, err
		}
		infos = below
	} else if e.meta == nil {
		return nil, pathError("readdir", p, syscall.ENOENT)
	} else if e.meta.Kind != fs.Directory {
		return nil, pathError("readdir", p, syscall.ENOTDIR)
	}
	if len(o.names[p]) == 0 {
		return infos, nil
	}
	infos = slices.DeleteFunc(slices.Clone(infos), func(info os.FileInfo) bool { return o.entries[path.Join(p, info.Name())] != nil })
	for _, name := range o.names[p] {
		if e := o.entries[path.Join(p, name)]; e.meta != nil {
			infos = append(infos, source.NewInfo(name, *e.meta))
		}
	}
	slices.SortFunc(infos, func(a, b os.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return infos, nil
}

// Open opens the regular file at p.
func (o *Overlay) Open(p string) (billy.File, error) {
	p = clean(p)
	e := o.entries[p]
	switch {
	case e == nil || e.kept && e.meta != nil:
		return o.base.Open(p)
	case e.meta == nil:
		return nil, pathError("open", p, syscall.ENOENT)
	case e.meta.Kind != fs.Regular:
		return nil, pathError("open", p, syscall.EINVAL)
	}
	return &file{Reader: bytes.NewReader(e.content), name: p, meta: e.meta}, nil
}

// OpenFile is Open for reading, and refuses everything else.
func (o *Overlay) OpenFile(p string, flag int, _ os.FileMode) (billy.File, error) {
	if flag&^syscall.O_CLOEXEC != os.O_RDONLY {
		return nil, billy.ErrReadOnly
	}
	return o.Open(p)
}

// Xattrs implements source.XattrReader.
func (o *Overlay) Xattrs(p string) ([]source.Xattr, error) {
	if e := o.entries[clean(p)]; e != nil && !e.kept {
		return e.xattrs, nil
	}
	if r, ok := o.base.(source.XattrReader); ok {
		return r.Xattrs(p)
	}
	return nil, nil
}

// Chroot is not offered.
func (o *Overlay) Chroot(string) (billy.Filesystem, error) { return nil, billy.ErrNotSupported }

// Root returns that of base.
func (o *Overlay) Root() string { return o.base.Root() }

// file is an open file whose content is in memory.
type file struct {
	source.ReadOnlyFile
	*bytes.Reader
	name string
	meta *source.Meta
}

var (
	_ billy.File    = (*file)(nil)
	_ source.Stater = (*file)(nil)
)

func (f *file) Name() string               { return f.name }
func (f *file) Close() error               { return nil }
func (f *file) Stat() (os.FileInfo, error) { return source.NewInfo(path.Base(f.name), *f.meta), nil }
