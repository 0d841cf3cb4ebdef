package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/go-git/go-billy/v5"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Dir is a directory of the host as a source. It follows no symlink below the
// directory, opens nothing but directories and regular files, and leaves access
// times alone. All methods may be called by many goroutines at once.
type Dir struct {
	ReadOnly
	root *os.File
}

var (
	_ billy.Filesystem = (*Dir)(nil)
	_ XattrReader      = (*Dir)(nil)
)

// OpenDir opens the directory at path, which may itself be reached by symlinks.
func OpenDir(path string) (*Dir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{root: f}, nil
}

// Close lets go of the directory. Without it the garbage collector does so.
func (d *Dir) Close() error { return d.root.Close() }

// Root returns the path that the directory was opened by.
func (d *Dir) Root() string { return d.root.Name() }

// Chroot returns the directory at p as a source of its own.
func (d *Dir) Chroot(p string) (billy.Filesystem, error) {
	f, err := d.open(p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &Dir{root: f}, nil
}

// relative returns p without its leading slash and without "..".
func relative(p string) string {
	if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p != "" {
		return p
	}
	return "."
}

// open opens p below the root without passing through a symlink, so that
// nobody who can write in the tree leads a seal that runs as root out of it.
func (d *Dir) open(p string, flags int) (*os.File, error) {
	fd, err := d.openFD(p, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.Root(), p)), nil
}

// openFD is open for a caller that needs no more than the descriptor, and closes it.
func (d *Dir) openFD(p string, flags int) (fd int, err error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	rel := relative(p)
	var noatime int
	if flags&unix.O_PATH == 0 { // openat2 refuses the two together
		noatime = unix.O_NOATIME
	}
	fd, err = d.openat(rel, flags|noatime)
	if err == unix.EPERM { // O_NOATIME is for the owner of a file only
		fd, err = d.openat(rel, flags)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: p, Err: err}
	}
	return fd, nil
}

func (d *Dir) openat(rel string, flags int) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err = unix.Openat2(int(d.root.Fd()), rel, &how)
		if err == unix.ENOSYS { // before Linux 5.6
			fd, err = openEach(int(d.root.Fd()), rel, flags)
		}
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: a rename raced with RESOLVE_BENEATH
			return fd, err
		}
	}
}

// openEach opens the path rel, which has no "..", below the directory dir, one
// component after the other: O_NOFOLLOW in flags is about the last one only.
func openEach(dir int, rel string, flags int) (fd int, err error) {
	const through = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		first, rest, more := strings.Cut(rel, "/")
		if !more {
			return unix.Openat(dir, first, flags, 0)
		}
		if dir, err = unix.Openat(dir, first, through, 0); err != nil {
			return -1, err
		}
		defer unix.Close(dir)
		rel = rest
	}
}

// Lstat returns the FileInfo of the object at p, not following it.
func (d *Dir) Lstat(p string) (os.FileInfo, error) {
	fd, err := d.openFD(p, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return statFile(fd, p)
}

// Stat is Lstat: a source does not follow links.
func (d *Dir) Stat(p string) (os.FileInfo, error) { return d.Lstat(p) }

// Readlink returns the text of the symlink at p.
func (d *Dir) Readlink(p string) (string, error) {
	f, err := d.open(p, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: p, Err: err}
	}
	return string(buf[:n]), nil
}

// ReadDir returns the entries of the directory at p, sorted by the bytes of
// their names.
func (d *Dir) ReadDir(p string) ([]os.FileInfo, error) {
	fd, err := d.openFD(p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var self, st unix.Statx_t
	if err := statx(fd, here, &self); err != nil {
		return nil, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	names, err := readNames(fd)
	if err != nil {
		return nil, &os.PathError{Op: "readdir", Path: p, Err: err}
	}
	// All of a directory in one piece: a listing of a hundred files takes 8 allocations
	// instead of 320.
	infos, all := make([]os.FileInfo, len(names)), make([]info, len(names))
	for i, name := range names {
		if err := statx(fd, name, &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: path.Join(p, name.String()), Err: err}
		}
		all[i] = info{name.String(), metaOf(&st)}
		all[i].meta.MountPoint = isMount(&st, &self)
		infos[i] = &all[i]
	}
	return infos, nil
}

// isMount reports whether something is mounted at an entry of the directory
// dir. Where the kernel does not say (before Linux 5.8) a directory with
// another device number is one; for files that would be wrong on overlayfs.
func isMount(st, dir *unix.Statx_t) bool {
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR && (st.Dev_major != dir.Dev_major || st.Dev_minor != dir.Dev_minor)
}

// Open opens the regular file at p.
func (d *Dir) Open(p string) (billy.File, error) {
	// O_NONBLOCK: should a FIFO have taken the place of the file, open
	// must not wait for somebody to write to it.
	f, err := d.open(p, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	info, err := statFile(int(f.Fd()), p)
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: p, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &dirFile{File: f, opened: MetaOf(info)}, nil
}

// OpenFile is Open for flag O_RDONLY and refuses everything else.
func (d *Dir) OpenFile(p string, flag int, _ os.FileMode) (billy.File, error) {
	if flag&^unix.O_CLOEXEC != os.O_RDONLY {
		return nil, billy.ErrReadOnly
	}
	return d.Open(p)
}

// Xattrs returns the attributes that Carries names.
func (d *Dir) Xattrs(p string) ([]Xattr, error) {
	f, err := d.open(p, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// By way of /proc, as there is no fgetxattr(2) for O_PATH. Unlike a path to
	// the object itself this passes through nothing that others may swap.
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	xattrs, err := readXattrs(p,
		func(buf []byte) (int, error) { return unix.Listxattr(self, buf) },
		func(name string, buf []byte) (int, error) { return unix.Getxattr(self, name, buf) })
	if errors.Is(err, unix.ENOENT) {
		err = fmt.Errorf("extended attributes cannot be read without /proc: %w", err)
	}
	return xattrs, err
}

// readXattrs reads the attributes of an object by its list and get.
func readXattrs(p string, list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]Xattr, error) {
	names, err := growing(list)
	if err == unix.ENOTSUP || len(names) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: p, Err: err}
	}
	var xattrs []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !Carries(name) {
			continue
		}
		value, err := growing(func(buf []byte) (int, error) { return get(name, buf) })
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: p, Err: err}
		}
		xattrs = append(xattrs, Xattr{name, value})
	}
	slices.SortFunc(xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs, nil
}

// growing calls get with a buffer large enough for its answer.
func growing(get func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := get(small[:])
	if err == nil {
		return append([]byte(nil), small[:n]...), nil
	}
	for err == unix.ERANGE {
		if n, err = get(nil); err != nil {
			break
		}
		buf := make([]byte, n)
		if n, err = get(buf); err == nil {
			return buf[:n], nil
		}
	}
	return nil, err
}

// dirFile is an open regular file.
type dirFile struct {
	ReadOnlyFile
	*os.File
	opened *Meta
}

var (
	_ billy.File = (*dirFile)(nil)
	_ DataFinder = (*dirFile)(nil)
	_ Stater     = (*dirFile)(nil)
	_ Xattrer    = (*dirFile)(nil)
)

func (f *dirFile) Write(p []byte) (int, error) { return f.ReadOnlyFile.Write(p) }
func (f *dirFile) Truncate(size int64) error   { return f.ReadOnlyFile.Truncate(size) }

// Stat returns the FileInfo of the file as it is now.
func (f *dirFile) Stat() (os.FileInfo, error) { return statFile(int(f.Fd()), f.Name()) }

// Xattrs is Dir.Xattrs for the open file, which saves finding it again.
func (f *dirFile) Xattrs() ([]Xattr, error) {
	fd := int(f.Fd())
	return readXattrs(f.Name(),
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// NextData asks the file system. One that cannot tell calls everything data.
func (f *dirFile) NextData(off int64) (from, to int64, err error) {
	fd := int(f.Fd())
	from, err = unix.Seek(fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return 0, 0, io.EOF
	}
	if err == nil {
		to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	}
	if err == unix.EINVAL || err == unix.ENOTSUP {
		if size := int64(f.opened.Size); off < size {
			return off, size, nil
		}
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, &os.PathError{Op: "seek", Path: f.Name(), Err: err}
	}
	return from, to, nil
}

// statFile returns the FileInfo of what is open as fd and was opened as p.
func statFile(fd int, p string) (os.FileInfo, error) {
	var st unix.Statx_t
	if err := statx(fd, here, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	return NewInfo(path.Base(p), metaOf(&st)), nil
}

// statx stats the entry name of an open directory, or what is open as fd itself
// if name is here. Unlike stat it has 64-bit times on 32-bit machines.
func statx(fd int, name cName, st *unix.Statx_t) error {
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_EMPTY_PATH
	// By hand, since unix.Statx copies the name into memory of its own.
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&name[0])), flags,
		unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
	switch {
	case errno != 0:
		return errno
	case kindOf(uint32(st.Mode)) == 0:
		return fmt.Errorf("unknown type %o", st.Mode)
	}
	return nil
}

func metaOf(st *unix.Statx_t) Meta {
	m := Meta{
		Kind:      kindOf(uint32(st.Mode)),
		Mode:      uint32(st.Mode) & 0o7777,
		UID:       st.Uid,
		GID:       st.Gid,
		Size:      st.Size,
		Allocated: st.Blocks * 512,
		Dev:       unix.Mkdev(st.Dev_major, st.Dev_minor),
		Ino:       st.Ino,
		Nlink:     st.Nlink,
		Mtime:     fs.Time{Sec: st.Mtime.Sec, Nsec: st.Mtime.Nsec},
		Ctime:     fs.Time{Sec: st.Ctime.Sec, Nsec: st.Ctime.Nsec},
	}
	if m.Kind == fs.BlockDevice || m.Kind == fs.CharDevice {
		m.Major, m.Minor = st.Rdev_major, st.Rdev_minor
	}
	return m
}
