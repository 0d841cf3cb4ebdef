package load

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const dropCaches = "/proc/sys/vm/drop_caches"

// CanDropCaches reports whether the page cache can be dropped here, which is for
// root.
func CanDropCaches() bool { return unix.Access(dropCaches, unix.W_OK) == nil }

// DropCaches makes the kernel forget the content of all files, and what it knows of
// them. Pages that a process has mapped stay.
func DropCaches() error {
	unix.Sync() // what is dirty cannot be dropped
	if err := os.WriteFile(dropCaches, []byte("3\n"), 0); err != nil {
		return fmt.Errorf("drop the page cache: %w", err)
	}
	return nil
}

// mayStay is how much of a file may stay in memory when it is chilled, in bytes.
const mayStay = 1 << 20

// Chill takes a file out of memory. It is an error if much of it stays: another
// process has it mapped, or it is on a file system that is in memory itself.
func Chill(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // what is dirty cannot be dropped
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return &os.PathError{Op: "fadvise", Path: path, Err: err}
	}
	stays, err := inMemory(f)
	if err == nil && stays > mayStay {
		err = fmt.Errorf("%s: %d MiB of it stay in memory", path, stays>>20)
	}
	return err
}

// inMemory returns how much of a file is in memory, in bytes (mincore(2)).
func inMemory(f *os.File) (n int, err error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	defer unix.Munmap(m)
	page := os.Getpagesize()
	pages := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		return 0, &os.PathError{Op: "mincore", Path: f.Name(), Err: errno}
	}
	for _, p := range pages {
		n += int(p&1) * page
	}
	return n, nil
}
