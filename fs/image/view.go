package image

import (
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// view is a version, or a directory in one, as a billy.Filesystem. It is also a
// source: sealing it gives the version's digest again.
type view struct {
	source.ReadOnly
	v    *Version
	root fs.NodeID
	path string // of root in the version
}

var (
	_ billy.Filesystem   = (*view)(nil)
	_ source.XattrReader = (*view)(nil)
)

// Filesystem returns the version as a read-only billy.Filesystem. It reads with
// the rights of root; symlinks that lead out of the tree end at its root.
func (v *Version) Filesystem() billy.Filesystem { return &view{v: v, root: 1, path: "/"} }

var rootCred = &fs.Cred{}

// maxLinks is how many symlinks a path may pass through, as on Linux.
const maxLinks = 40

// resolve finds the object at p. It follows symlinks, the last one only if
// follow is set.
func (w *view) resolve(p string, follow bool) (fs.NodeID, error) {
	id, links := w.root, 0
	for rest := path.Clean("/" + p); ; {
		name, more, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if name == "" {
			return id, nil
		}
		next, err := w.lookup(id, name)
		if err != nil {
			return 0, err
		}
		text, err := w.v.Readlink(next)
		if err != nil || more == "" && !follow {
			id, rest = next, more
			continue
		}
		if links++; links > maxLinks {
			return 0, syscall.ELOOP
		}
		if strings.HasPrefix(string(text), "/") {
			id = w.root
		}
		rest = string(text) + "/" + more
	}
}

// lookup is Lookup that does not leave the view.
func (w *view) lookup(dir fs.NodeID, name string) (fs.NodeID, error) {
	n, err := fs.ParseName([]byte(name))
	if err != nil {
		return 0, err
	}
	if dir == w.root && n.IsDotDot() {
		return dir, nil
	}
	return w.v.Lookup(rootCred, dir, n)
}

// errnos are what a host's file system says for the errors of a tree.
var errnos = map[fs.Error]error{
	fs.ErrNotExist: syscall.ENOENT, fs.ErrNotDir: syscall.ENOTDIR, fs.ErrIsDir: syscall.EISDIR,
	fs.ErrInvalid: syscall.EINVAL, fs.ErrNameTooLong: syscall.ENAMETOOLONG,
}

func pathError(op, p string, err error) error {
	if kind, ok := err.(fs.Error); ok && errnos[kind] != nil {
		err = errnos[kind]
	}
	return &os.PathError{Op: op, Path: p, Err: err}
}

// Lstat implements billy.Symlink.
func (w *view) Lstat(p string) (os.FileInfo, error) { return w.stat(p, false) }

// Stat implements billy.Basic.
func (w *view) Stat(p string) (os.FileInfo, error) { return w.stat(p, true) }

func (w *view) stat(p string, follow bool) (os.FileInfo, error) {
	id, err := w.resolve(p, follow)
	if err != nil {
		return nil, pathError("stat", p, err)
	}
	info, err := w.v.info(id, path.Base(path.Clean("/"+p)))
	if err != nil {
		return nil, pathError("stat", p, err)
	}
	return info, nil
}

// info returns the FileInfo of an object.
func (v *Version) info(id fs.NodeID, name string) (os.FileInfo, error) {
	var a fs.Attr
	if err := v.Getattr(id, &a); err != nil {
		return nil, err
	}
	return source.NewInfo(name, source.Meta{
		Kind: a.Kind, Mode: a.Mode, UID: a.UID, GID: a.GID, Size: a.Size, Allocated: a.Used,
		Dev: a.FSID, Ino: a.FileID, Nlink: a.Nlink, Major: a.Major, Minor: a.Minor, Mtime: a.Mtime, Ctime: a.Ctime,
	}), nil
}

// Readlink implements billy.Symlink.
func (w *view) Readlink(p string) (string, error) {
	id, err := w.resolve(p, false)
	if err != nil {
		return "", pathError("readlink", p, err)
	}
	text, err := w.v.Readlink(id)
	if err != nil {
		return "", pathError("readlink", p, err)
	}
	return string(text), nil
}

// ReadDir implements billy.Dir. The order is that of the names' bytes.
func (w *view) ReadDir(p string) ([]os.FileInfo, error) {
	dir, err := w.resolve(p, true)
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	entries, err := w.v.entries(dir)
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	var infos []os.FileInfo
	for _, e := range entries {
		info, err := w.v.info(e.ID, string(e.Name))
		if err != nil {
			return nil, pathError("stat", path.Join(p, string(e.Name)), err)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// Xattrs implements source.XattrReader.
func (w *view) Xattrs(p string) ([]source.Xattr, error) {
	id, err := w.resolve(p, false)
	if err != nil {
		return nil, pathError("listxattr", p, err)
	}
	xattrs, err := w.v.xattrs(id)
	if err != nil {
		return nil, pathError("listxattr", p, err)
	}
	return xattrs, nil
}

func (v *Version) xattrs(id fs.NodeID) (_ []source.Xattr, err error) {
	defer v.guard(debug.SetPanicOnFault(true), &err)
	n, err := v.index.inode(id)
	if err != nil {
		return nil, err
	}
	return v.index.xattrs(n)
}

// Chroot implements billy.Chroot.
func (w *view) Chroot(p string) (billy.Filesystem, error) {
	id, err := w.resolve(p, true)
	if err == nil {
		_, _, err = w.v.ReadDir(rootCred, id, 0, nil) // is it a directory?
	}
	if err != nil {
		return nil, pathError("chroot", p, err)
	}
	return &view{v: w.v, root: id, path: path.Join(w.path, p)}, nil
}

// Root implements billy.Chroot.
func (w *view) Root() string { return w.path }

// Open implements billy.Basic. It opens regular files.
func (w *view) Open(p string) (billy.File, error) {
	id, err := w.resolve(p, true)
	if err == nil {
		_, _, err = w.v.Read(rootCred, id, 0, nil, false) // is it a file?
	}
	if err != nil {
		return nil, pathError("open", p, err)
	}
	info, err := w.v.info(id, path.Base(p))
	if err != nil {
		return nil, pathError("open", p, err)
	}
	return &viewFile{v: w.v, id: id, path: p, info: info}, nil
}

// OpenFile implements billy.Basic: Open for reading, ErrReadOnly otherwise.
func (w *view) OpenFile(p string, flag int, _ os.FileMode) (billy.File, error) {
	if flag&^syscall.O_CLOEXEC != os.O_RDONLY {
		return nil, billy.ErrReadOnly
	}
	return w.Open(p)
}

// viewFile is an open file of a view.
type viewFile struct {
	source.ReadOnlyFile
	v    *Version
	id   fs.NodeID
	path string
	info os.FileInfo
	off  int64
}

var (
	_ source.DataFinder = (*viewFile)(nil)
	_ source.Stater     = (*viewFile)(nil)
)

func (f *viewFile) Name() string               { return f.path }
func (f *viewFile) Close() error               { return nil }
func (f *viewFile) Stat() (os.FileInfo, error) { return f.info, nil }

func (f *viewFile) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *viewFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, pathError("read", f.path, syscall.EINVAL)
	}
	n, _, err := f.v.Read(rootCred, f.id, uint64(off), p, false)
	if err != nil {
		return n, pathError("read", f.path, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *viewFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		offset += f.info.Size()
	default:
		offset = -1
	}
	if offset < 0 {
		return 0, pathError("seek", f.path, syscall.EINVAL)
	}
	f.off = offset
	return offset, nil
}

// NextData implements source.DataFinder: what is not in an extent is a hole.
func (f *viewFile) NextData(off int64) (from, to int64, err error) {
	defer f.v.guard(debug.SetPanicOnFault(true), &err)
	n, err := f.v.index.inode(f.id)
	if err != nil {
		return 0, 0, err
	}
	c, err := f.v.index.fileOf(n)
	if err != nil {
		return 0, 0, err
	}
	i := c.seek(uint64(max(off, 0)) / chunkSize)
	if off < 0 || i == c.numExtents() || uint64(off) >= c.size || c.extent(i).chunk() > (c.size-1)/chunkSize {
		return 0, 0, io.EOF
	}
	e := c.extent(i)
	from = max(off, int64(e.chunk()*chunkSize))
	if last := e.chunk() + uint64(e.count()); last <= c.size/chunkSize {
		return from, int64(last * chunkSize), nil
	}
	return from, int64(c.size), nil
}
