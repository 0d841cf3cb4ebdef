package image

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// scratch is memory of a seal that grows with the tree: a file without a name
// that is mapped. Unlike memory of the process's own, which it would be short of
// with millions of objects, the kernel can write it to disk and use it otherwise.
// Who uses it does so under a guard.
type scratch struct{ data []byte }

// newScratch returns n bytes that are zero.
func newScratch(s *Store, n uint64) (scratch, error) {
	if n > math.MaxInt {
		return scratch{}, errors.New("too many objects for this machine's address space")
	}
	f, err := nameless(s.versionsDir())
	if err != nil {
		return scratch{}, err
	}
	defer f.Close()
	// To write to a page for which the disk has no room would be a fault.
	if err := (frugal{s, f}).allocate(n); err != nil {
		return scratch{}, err
	}
	const access = unix.PROT_READ | unix.PROT_WRITE
	data, err := unix.Mmap(int(f.Fd()), 0, int(n), access, unix.MAP_SHARED)
	if err == unix.ENODEV || err == unix.EINVAL { // some file systems map nothing that is written to
		data, err = unix.Mmap(-1, 0, int(n), access, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	}
	if err != nil {
		return scratch{}, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return scratch{data}, nil
}

// close gives the memory back.
func (m scratch) close() {
	if m.data != nil {
		_ = unix.Munmap(m.data) // fails only for what was never mapped
	}
}
