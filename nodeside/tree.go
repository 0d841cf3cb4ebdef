package nodeside

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
)

// Tree is a golden tree that files are put into. Nothing in it leads out of it: a path that passes through a
// symlink is an error. One goroutine at a time may use it.
type Tree struct {
	dir *os.File
}

// OpenTree opens the tree in a directory.
func OpenTree(dir string) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Tree{os.NewFile(uintptr(fd), dir)}, nil
}

// Close lets go of the tree.
func (t *Tree) Close() error { return t.dir.Close() }

// Put makes a file in the tree, in a directory that must be there, or replaces what has its name, if that is no
// directory. It is root's, where this process may give it away. At each moment the old one is there or the new one,
// whole, also after a power cut. A directory that is there is left as it is.
func (t *Tree) Put(f File) error {
	if err := t.put(f); err != nil {
		return fmt.Errorf("put %s into %s: %w", f.Path, t.dir.Name(), err)
	}
	return nil
}

func (t *Tree) put(f File) error {
	p := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
	if p == "" {
		return errors.New("it has no name")
	}
	dir, err := t.directory(path.Dir(p))
	if err != nil {
		return err
	}
	defer dir.Close()
	name, fd := path.Base(p), int(dir.Fd())
	var st unix.Stat_t
	if f.Kind == fs.Directory && unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	temp := ".rootnfsd-" + strings.ToLower(rand.Text())
	if err := write(fd, temp, f); err != nil {
		return errors.Join(err, removeTemp(fd, temp, f.Kind))
	}
	if err := unix.Renameat(fd, temp, fd, name); err != nil {
		return errors.Join(err, removeTemp(fd, temp, f.Kind))
	}
	return dir.Sync()
}

// directory opens a directory by its real path.
func (t *Tree) directory(p string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(int(t.dir.Fd()), p, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), p), nil
		case unix.EINTR, unix.EAGAIN: // EAGAIN: a rename raced with RESOLVE_BENEATH
		case unix.ENOSYS:
			return nil, errors.New("this kernel has no openat2 (before Linux 5.6): use --tar, and unpack it in the tree by chroot")
		default:
			return nil, &os.PathError{Op: "open", Path: "/" + p, Err: err}
		}
	}
}

// write makes an object under a temporary name.
func write(dir int, name string, f File) error {
	how := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	switch f.Kind {
	case fs.Symlink:
		if err := unix.Symlinkat(f.Content, dir, name); err != nil {
			return err
		}
		return own(dir, name)
	case fs.Directory:
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return err
		}
		how = unix.O_RDONLY | unix.O_DIRECTORY
	}
	fd, err := unix.Openat(dir, name, how|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	if f.Kind == fs.Regular {
		_, err = out.WriteString(f.Content)
	}
	if err == nil {
		err = own(dir, name)
	}
	if err == nil {
		err = unix.Fchmod(fd, f.Mode) // behind chown, which takes setuid bits away, and whatever the umask is
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// own gives an object to root. Who is not root cannot, and has a tree of its own.
func own(dir int, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return unix.Fchownat(dir, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW)
}

func removeTemp(dir int, name string, kind fs.Kind) error {
	flags := 0
	if kind == fs.Directory {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(dir, name, flags); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
