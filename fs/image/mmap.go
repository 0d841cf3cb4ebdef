package image

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// mapping is a part of a file mapped read-only into memory. Its owner unmaps it
// when nobody can hold its bytes any more.
type mapping struct {
	data  []byte // the part that was asked for
	pages []byte // the pages that it lies in
}

// mapFile maps n bytes of f from off on.
func mapFile(f *os.File, off, n int64) (mapping, error) {
	if n == 0 {
		return mapping{}, nil
	}
	lead := off % int64(os.Getpagesize())
	if n > math.MaxInt-lead {
		return mapping{}, fmt.Errorf("%s: %d bytes are too much for this machine's address space", f.Name(), n)
	}
	pages, err := unix.Mmap(int(f.Fd()), off-lead, int(lead+n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return mapping{}, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return mapping{pages[lead:], pages}, nil
}

// mapWhole maps all of the file at path.
func mapWhole(path string) (mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return mapping{}, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return mapping{}, err
	}
	return mapFile(f, 0, stat.Size())
}

// unmap releases the memory. It is a function of the mapping alone, as
// runtime.AddCleanup wants it.
func (m mapping) unmap() {
	if m.pages != nil {
		_ = unix.Munmap(m.pages) // fails only for what was never mapped
	}
}
