package exports

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// tempHome is how the names of homes in the making begin.
const tempHome = durable.TempPattern + "home-"

// makeHome makes a home at dir: a copy of the skeleton, or an empty directory
// without one. When it returns nil the home is on disk; when it fails, or never
// returns, there is none, or the one that somebody else has made meanwhile.
func makeHome(dir, skeleton string) (err error) {
	parent := filepath.Dir(dir)
	temp, err := os.MkdirTemp(parent, tempHome+"*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if skeleton == "" {
		err = errors.Join(os.Chmod(temp, 0o755), durable.SyncDir(temp))
	} else {
		err = copySkeleton(skeleton, temp)
	}
	if err != nil {
		return fmt.Errorf("make the home %s: %w", dir, err)
	}
	if err := renameNew(temp, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return durable.SyncDir(parent)
}

// renameNew renames a directory to a name that must not be taken.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// This file system cannot. Then at worst an empty directory is replaced.
		return os.Rename(from, to)
	}
	return err
}

// removeTempHomes removes what a crash has left of homes in the making.
func removeTempHomes(dir string) error {
	left, err := filepath.Glob(filepath.Join(globQuote(dir), tempHome+"*"))
	for _, l := range left {
		err = errors.Join(err, os.RemoveAll(l))
	}
	return err
}

// globQuote returns a pattern that only s matches.
func globQuote(s string) string {
	var q []byte
	for _, b := range []byte(s) {
		if b == '*' || b == '?' || b == '[' || b == '\\' {
			q = append(q, '\\')
		}
		q = append(q, b)
	}
	return string(q)
}

// skeleton copies a directory with owners, modes, times and hard links, and
// sees to it that every copy is on disk.
type skeleton struct {
	// root is the directory. A part of it may belong to a user of this machine, who
	// must not get copies of what is elsewhere by swapping in symlinks.
	root   *os.Root
	copies map[inode]string // of objects that have several names
}

type inode struct{ dev, ino uint64 }

// copySkeleton copies the directory from to to, which is empty.
func copySkeleton(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	s := &skeleton{root: root, copies: map[inode]string{}}
	return s.copyDir(".", to)
}

// copyDir copies what is in the directory from into to, which is empty, and then
// its attributes.
func (s *skeleton) copyDir(from, to string) error {
	dir, err := s.root.OpenFile(from, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.copy(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	if err := copyAttributes(to, info); err != nil {
		return err
	}
	return durable.SyncDir(to)
}

// copy copies one object of any kind.
func (s *skeleton) copy(from, to string) error {
	info, err := s.root.Lstat(from)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := s.copies[id]; ok {
			return os.Link(first, to)
		}
		s.copies[id] = to
	}
	switch info.Mode().Type() {
	case os.ModeDir:
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		return s.copyDir(from, to)
	case 0:
		return s.copyFile(from, to, info)
	case os.ModeSymlink:
		text, err := s.root.Readlink(from)
		if err != nil {
			return err
		}
		err = os.Symlink(text, to)
		if err != nil {
			return err
		}
	default:
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return fmt.Errorf("mknod %s: %w", to, err)
		}
	}
	return copyAttributes(to, info) // durable with the directory
}

// copyFile copies a regular file.
func (s *skeleton) copyFile(from, to string, info os.FileInfo) (err error) {
	// Should it be something else by now, opening it must not wait.
	src, err := s.root.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := copyAttributes(to, info); err != nil {
		return err
	}
	return dst.Sync()
}

// copyAttributes gives the copy of an object its owner, mode and times.
func copyAttributes(to string, info os.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSymlink {
		// After the owner, whose change takes setuid and setgid away.
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod %s: %w", to, err)
		}
	}
	times := []unix.Timespec{unix.Timespec(st.Atim), unix.Timespec(st.Mtim)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set the times of %s: %w", to, err)
	}
	return nil
}
